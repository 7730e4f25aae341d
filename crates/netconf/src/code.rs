//! CNI error codes: 1 to 99 as the specification has them, ours from 100.

/// The configuration's `cniVersion` is not one that we speak.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// A key of the configuration asks for something that we do not do.
pub const UNSUPPORTED: u32 = 2;
/// An environment variable is missing or wrong.
pub const ENVIRONMENT: u32 = 4;
/// A file could not be read or written.
pub const IO: u32 = 5;
/// Standard input is not the JSON that it should be.
pub const DECODE: u32 = 6;
/// A value of the configuration is wrong.
pub const CONFIG: u32 = 7;
/// The network namespace is the node's own.
pub const NETNS: u32 = 8;
/// Something that should be there in a moment is not: the loader, a lock.
pub const TRY_AGAIN: u32 = 11;
/// STATUS: pods cannot be added.
pub const UNAVAILABLE: u32 = 50;
/// STATUS: nor are the existing ones served as they should be.
pub const LIMITED: u32 = 51;
/// The request cannot be served (Azure's code for everything): no address left, no pod name.
pub const PLUGIN: u32 = 100;
/// Not root.
pub const PRIVILEGE: u32 = 101;
/// The kernel refused links, addresses, routes or sysctls.
pub const KERNEL: u32 = 102;
/// The programs could not be attached.
pub const PROGRAMS: u32 = 103;
/// The IPAM plug-in misbehaved.
pub const DELEGATE: u32 = 104;
/// CHECK found something missing.
pub const CHECK: u32 = 105;
/// A bug of ours.
pub const BUG: u32 = 199;
