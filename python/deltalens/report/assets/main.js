setUpTheme();
setUpTable();
setUpBeside();
setUpSettings();
setUpFigures();
setUpDialog();
setUpKeys();
setUpPrint();
