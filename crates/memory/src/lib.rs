//! A tenant's memory as the server sees it

mod device_window;

pub use device_window::DeviceWindow;
