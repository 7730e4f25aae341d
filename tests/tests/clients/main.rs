//! The container runtimes themselves, on nodes of the lab: nobody stands in for them.
#![cfg(test)]

mod bandwidth;
mod containerd;
mod cri;
mod crio;
mod ctr;
mod grpc;
mod image;
mod podman;
mod sandboxes;
mod scene;
mod scripts;
