//! The container runtimes themselves, on nodes of the lab: nobody stands in for them.
#![cfg(test)]

mod containerd;
mod cri;
mod grpc;
mod image;
mod sandboxes;
mod scene;
