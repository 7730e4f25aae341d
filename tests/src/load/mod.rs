//! What does much traffic do? Loads that count exactly: connections that are held, and connections that come and go.

mod bulk;
mod connect_close;
mod files;
mod hold;
mod hold_server;
mod ratio;

pub use connect_close::{ConnectClose, ConnectCloseServer};
pub use hold::{Asked, Held};
pub use hold_server::HoldServer;
pub use ratio::Ratio;
