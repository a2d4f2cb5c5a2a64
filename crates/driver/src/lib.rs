//! A bare-metal style driver for the unit and the accelerator over vfio-user
