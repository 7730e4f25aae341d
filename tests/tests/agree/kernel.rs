//! The kernel's side: the object loaded without pins, its maps filled from a world, its programs run one frame at a time.

use std::path::Path;
use std::time::Duration;

use abi::pins::program;
use abi::{ClassEntry, IfIndex};
use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use datapath::model::Frame;
use hooks::{Abi, Maps};

use crate::world::World;

/// Size of `struct __sk_buff`, and the offsets of the fields that a test run may set (`linux/bpf.h`).
const SKB: usize = 192;
const MARK: usize = 8;
const IFINDEX: usize = 40;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;

pub(crate) struct Kernel {
    object: Ebpf,
    pub(crate) maps: Maps,
}

/// What a test run gave.
pub(crate) struct Ran {
    pub(crate) code: u32,
    pub(crate) frame: Frame,
    pub(crate) time: Duration,
}

impl Kernel {
    pub(crate) fn load() -> Self {
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ebpf/azure-vnet.bpf.o");
        let path = std::env::var_os("AZURE_VNET_BPF_OBJECT").map_or(default, Into::into);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| {
            panic!(
                "read {}: {error}; run `cargo xtask build-ebpf`",
                path.display()
            )
        });
        let mut object = Ebpf::load(&bytes).unwrap();
        for name in program::ALL {
            let program: &mut SchedClassifier =
                object.program_mut(name).unwrap().try_into().unwrap();
            program
                .load()
                .unwrap_or_else(|error| panic!("{name}: {error:#?}"));
        }
        let guard: &mut Xdp = object
            .program_mut(program::XDP_GUARD)
            .unwrap()
            .try_into()
            .unwrap();
        guard.load().unwrap_or_else(|error| panic!("{error:#?}"));
        let maps = Maps::from_object(&mut object).unwrap();
        Self { object, maps }
    }

    /// Instructions that the verifier walked through, by program.
    pub(crate) fn verified_instructions(&self) -> Vec<(&'static str, u32)> {
        let count = |name| {
            self.program(name)
                .info()
                .unwrap()
                .verified_instruction_count()
                .unwrap()
        };
        let guard = self.guard().info().unwrap();
        let guard = guard.verified_instruction_count().unwrap();
        let mut counts = program::ALL.map(|name| (name, count(name))).to_vec();
        counts.push((program::XDP_GUARD, guard));
        counts
    }

    pub(crate) fn guard(&self) -> &Xdp {
        let program = self.object.program(program::XDP_GUARD).unwrap();
        program.try_into().unwrap()
    }

    pub(crate) fn program(&self, name: &str) -> &SchedClassifier {
        self.object.program(name).unwrap().try_into().unwrap()
    }

    pub(crate) fn fill(&mut self, world: &World) {
        let memory = &world.memory;
        self.maps
            .config
            .set(0, Abi(memory.config.unwrap()), 0)
            .unwrap();
        self.maps
            .secret
            .set(0, Abi(memory.secret.unwrap()), 0)
            .unwrap();
        for (addr, pod) in &memory.pods {
            self.maps.pods.insert(Abi(*addr), Abi(*pod), 0).unwrap();
        }
        for (ifindex, veth) in &memory.veths {
            self.maps
                .veths
                .insert(Abi(*ifindex), Abi(*veth), 0)
                .unwrap();
        }
        for (addr, len, class) in &memory.classes {
            let key = Key::new(u32::from(*len), Abi(*addr));
            self.maps
                .dst4
                .insert(&key, Abi(ClassEntry::new(*class)), 0)
                .unwrap();
        }
        for (addr, len) in &memory.denied {
            let key = Key::new(u32::from(*len), Abi(*addr));
            self.maps.deny.insert(&key, 1, 0).unwrap();
        }
        for (key, flow) in memory.flows.borrow().iter() {
            self.maps.flows.insert(Abi(*key), Abi(*flow), 0).unwrap();
        }
        for (key, binding) in memory.bindings.borrow().iter() {
            self.maps.snat.insert(Abi(*key), Abi(*binding), 0).unwrap();
        }
    }

    pub(crate) fn run(&self, name: &str, frame: &Frame, ifindex: IfIndex) -> Ran {
        self.repeat(name, frame, ifindex, 1)
    }

    /// Runs the program `repeat` times on the same frame, which keeps what an earlier run wrote.
    pub(crate) fn repeat(&self, name: &str, frame: &Frame, ifindex: IfIndex, repeat: u32) -> Ran {
        let mut ctx_in = [0; SKB];
        put(&mut ctx_in, MARK, frame.mark);
        put(&mut ctx_in, IFINDEX, ifindex.get());
        put(&mut ctx_in, GSO_SIZE, frame.gso_size);
        put(&mut ctx_in, GSO_SEGS, u32::from(frame.gso_size > 0));
        let mut ctx_out = [0; SKB];
        let mut bytes = vec![0; frame.bytes.len() + 256];
        let options = TestRunOptions {
            data_in: Some(&frame.bytes),
            data_out: Some(&mut bytes),
            ctx_in: Some(&ctx_in),
            ctx_out: Some(&mut ctx_out),
            repeat,
            ..TestRunOptions::new()
        };
        let ran = self
            .program(name)
            .test_run(options)
            .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
        bytes.truncate(ran.data_size_out as usize);
        let mark = u32::from_ne_bytes(ctx_out[MARK..MARK + 4].try_into().unwrap());
        Ran {
            code: ran.return_value,
            frame: Frame {
                bytes,
                mark,
                gso_size: frame.gso_size,
                vlan_tag: false,
            },
            time: ran.duration,
        }
    }
}

fn put(ctx: &mut [u8; SKB], at: usize, value: u32) {
    ctx[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}
