One file is all there is to install, and it says which it is:

  $ cowhand --version
  \d+\.\d+\.\d+ (re)
