//! The kernel's side as [`datapath::model`] has it: tables copied out of maps and into them, and a program run on one
//! frame, for whoever compares both.

use std::time::Duration;

use abi::{ClassEntry, IfIndex};
use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use datapath::Verdict;
use datapath::model::{Frame, Memory};

use crate::{Abi, Maps};

impl Maps {
    /// Node, pods, classes and sources that are denied: what is small. Of flows and bindings there may be hundreds of thousands.
    pub fn small_tables(&self) -> Result<Memory, MapError> {
        let mut memory = Memory::new();
        memory.config = Some(self.config.get(&0, 0)?.0).filter(|config| config.nic.get() != 0);
        memory.secret = Some(self.secret.get(&0, 0)?.0);
        memory.lost.set(self.flows_lost.get(&0, 0)?);
        for entry in &self.pods {
            let (addr, pod) = entry?;
            let open = self.snat_open.get(&pod.0.slot.index(), 0)?;
            memory.open.get_mut().insert(pod.0.slot, open);
            memory.pods.insert(addr.0, pod.0);
        }
        for entry in &self.veths {
            let (ifindex, veth) = entry?;
            memory.veths.insert(ifindex.0, veth.0);
        }
        for entry in &self.dst4 {
            let (key, class) = entry?;
            let length = u8::try_from(key.prefix_len()).unwrap_or(32);
            memory.classes.push((key.data().0, length, class.0.class()));
        }
        for entry in &self.deny {
            let (key, _) = entry?;
            let length = u8::try_from(key.prefix_len()).unwrap_or(32);
            memory.denied.push((key.data().0, length));
        }
        Ok(memory)
    }

    /// Adds the entries of `memory`; fragments and what is counted are left out.
    pub fn fill(&mut self, memory: &Memory) -> Result<(), MapError> {
        if let Some(config) = memory.config {
            self.config.set(0, Abi(config), 0)?;
        }
        if let Some(secret) = memory.secret {
            self.secret.set(0, Abi(secret), 0)?;
        }
        self.flows_lost.set(0, memory.lost.get(), 0)?;
        for (slot, open) in memory.open.borrow().iter() {
            self.snat_open.set(slot.index(), open, 0)?;
        }
        for (addr, pod) in &memory.pods {
            self.pods.insert(Abi(*addr), Abi(*pod), 0)?;
        }
        for (ifindex, veth) in &memory.veths {
            self.veths.insert(Abi(*ifindex), Abi(*veth), 0)?;
        }
        for (addr, length, class) in &memory.classes {
            let key = Key::new(u32::from(*length), Abi(*addr));
            self.dst4.insert(&key, Abi(ClassEntry::new(*class)), 0)?;
        }
        for (addr, length) in &memory.denied {
            let key = Key::new(u32::from(*length), Abi(*addr));
            self.deny.insert(&key, 1, 0)?;
        }
        for (key, flow) in memory.flows.borrow().iter() {
            self.flows.insert(Abi(*key), Abi(*flow), 0)?;
        }
        for (key, binding) in memory.bindings.borrow().iter() {
            self.snat.insert(Abi(*key), Abi(*binding), 0)?;
        }
        Ok(())
    }
}

/// The value that a program returns for a verdict: `TCX_NEXT`, `TC_ACT_SHOT` or `TC_ACT_REDIRECT`.
pub const fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Stack => u32::MAX,
        Verdict::Drop(_) => 2,
        Verdict::Peer(_) | Verdict::Wire(_) | Verdict::Via(..) | Verdict::Reply(_) => 7,
    }
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    /// What the program returned.
    pub code: u32,
    /// The frame as the program left it.
    pub frame: Frame,
    /// How long a run took.
    pub time: Duration,
}

/// Size of `struct __sk_buff`, and the offsets of the fields that a test run may set (`linux/bpf.h`).
const SKB: usize = 192;
const MARK: usize = 8;
const PRIORITY: usize = 32;
const IFINDEX: usize = 40;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;

/// Runs the program `repeat` times on the same frame, which keeps what an earlier run wrote, as if it came from `ifindex`,
/// an interface of the calling thread's network namespace. Whatever it returns, the frame goes nowhere
/// (`BPF_PROG_TEST_RUN`).
pub fn test_run(
    program: &SchedClassifier,
    frame: &Frame,
    ifindex: IfIndex,
    repeat: u32,
) -> Result<Ran, ProgramError> {
    let mut ctx_in = [0; SKB];
    put(&mut ctx_in, MARK, frame.mark);
    put(&mut ctx_in, PRIORITY, frame.priority);
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
    let ran = program.test_run(options)?;
    bytes.truncate(ran.data_size_out as usize);
    Ok(Ran {
        code: ran.return_value,
        frame: Frame {
            bytes,
            mark: field(&ctx_out, MARK),
            priority: field(&ctx_out, PRIORITY),
            gso_size: frame.gso_size,
            vlan_tag: false,
        },
        time: ran.duration,
    })
}

fn field(ctx: &[u8; SKB], at: usize) -> u32 {
    let field = ctx.get(at..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |field| u32::from_ne_bytes(*field))
}

fn put(ctx: &mut [u8; SKB], at: usize, value: u32) {
    if let Some(field) = ctx.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_ne_bytes();
    }
}
