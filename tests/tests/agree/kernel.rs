//! The kernel's side: the object loaded without pins, its maps filled from a world, its programs run one frame at a time.

use std::path::Path;

use abi::pins::{map, program};
use abi::{IfIndex, Watch};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp};
use datapath::model::Frame;
use hooks::Maps;
use hooks::model::{Ran, test_run};

use crate::world::World;

pub(crate) struct Kernel {
    object: Ebpf,
    pub(crate) maps: Maps,
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

    fn guard(&self) -> &Xdp {
        let program = self.object.program(program::XDP_GUARD).unwrap();
        program.try_into().unwrap()
    }

    /// One run of the guard on a frame, which it does not change.
    pub(crate) fn guard_run(&self, frame: &Frame) -> TestRunResult {
        let mut bytes = vec![0; frame.bytes.len() + 256];
        let options = TestRunOptions {
            data_in: Some(&frame.bytes),
            data_out: Some(&mut bytes),
            repeat: 1,
            ..TestRunOptions::new()
        };
        let ran = self.guard().test_run(options).unwrap();
        bytes.truncate(ran.data_size_out as usize);
        assert_eq!(bytes, frame.bytes, "a guard only looks");
        ran
    }

    pub(crate) fn program(&self, name: &str) -> &SchedClassifier {
        self.object.program(name).unwrap().try_into().unwrap()
    }

    /// From now on somebody wants to hear of every packet.
    pub(crate) fn listen(&mut self) {
        let watch = self.object.take_map(map::WATCH).unwrap();
        let mut watch = Array::<_, u32>::try_from(watch).unwrap();
        for index in 0..Watch::CAPACITY {
            watch.set(index, u32::MAX, 0).unwrap();
        }
    }

    pub(crate) fn fill(&mut self, world: &World) {
        self.maps.fill(&world.memory).unwrap();
    }

    pub(crate) fn run(&self, name: &str, frame: &Frame, ifindex: IfIndex) -> Ran {
        self.repeat(name, frame, ifindex, 1)
    }

    /// Runs the program `repeat` times on the same frame, which keeps what an earlier run wrote.
    pub(crate) fn repeat(&self, name: &str, frame: &Frame, ifindex: IfIndex, repeat: u32) -> Ran {
        test_run(self.program(name), frame, ifindex, repeat)
            .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
    }
}
