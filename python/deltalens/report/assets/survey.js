const $ = (selector) => document.querySelector(selector);
setUpTheme();
