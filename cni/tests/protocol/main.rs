//! The plug-ins as a runtime sees them: exec'd, with environment and standard input, judged by what they print.
//!
//! Numbers in the tests' comments are the rows of the project's CNI conformance list. The tests need root, because each runs in
//! a mount and a network namespace of its own; nothing outside of these is touched.

#[cfg(test)]
mod add;
#[cfg(test)]
mod again;
#[cfg(test)]
mod azure;
#[cfg(test)]
mod beside;
#[cfg(test)]
mod check;
#[cfg(test)]
mod config;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod del;
#[cfg(test)]
mod delegate;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod full;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod gc;
#[cfg(test)]
mod ipam;
#[cfg(test)]
mod loader;
#[cfg(test)]
mod others;
#[cfg(test)]
mod patience;
#[cfg(test)]
mod pools;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod release;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod status;
#[cfg(test)]
mod takeover;
#[cfg(test)]
mod version;
#[cfg(test)]
mod veths;
#[cfg(test)]
mod wishes;
