"""A belt to try the reject controller on, bad days included: the same world for the AVR image and the host build."""
