setUpTheme();
setUpHead();
setUpTable();
setUpBeside();
setUpSettings();
setUpFigures();
setUpDialog();
