"""What accounts do by mail: verify an address, set a forgotten password, change the address."""
