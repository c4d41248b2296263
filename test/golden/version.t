One file is all there is to install, and it says which it is:

  $ cowhand --version
  cowhand \d+\.\d+\.\d+ (re)
