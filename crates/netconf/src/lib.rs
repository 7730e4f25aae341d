//! What CNI plug-ins read and write: the network configuration, `CNI_ARGS`, results, versions, error codes.
//!
//! Both plug-ins and `vnetctl validate` use this one implementation; nothing here touches the system.
//!
//! | Question | Module |
//! |---|---|
//! | What does a plug-in's configuration say? | `config`, `ipam`, `keys`, `dns`, `attachments` |
//! | What of it does DEL need? | `leaving` |
//! | When is a DEL to do nothing? | `only_if` |
//! | Is a whole conflist right? | [`conflist`], `place` |
//! | How are keys found whatever their case? | `document` |
//! | What may a name be? | [`names`] |

mod args;
mod asked;
mod attachments;
pub mod code;
mod config;
pub mod conflist;
mod dns;
mod document;
mod error;
mod ipam;
mod keys;
mod leaving;
pub mod names;
mod nearest;
mod only_if;
mod place;
mod result;
mod version;

pub use args::{Args, ArgsError};
pub use attachments::{Attachments, list_also};
pub use config::{IPAM_PLUGIN, MAIN_PLUGIN, Mode, Netconf};
pub use document::{WrongKind, lowered};
pub use error::NetconfError;
pub use ipam::{Environment, Ipam};
pub use leaving::Leaving;
pub use nearest::nearest;
pub use only_if::OnlyIf;
pub use result::{Address, BadResult, Dns, Interface, Success};
pub use version::{Shape, Version};
