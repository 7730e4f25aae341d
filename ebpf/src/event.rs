//! Telling listeners of a packet.

use core::ffi::c_void;

use abi::{Event, Happening, IfIndex, Watch};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::lookup::now;
use crate::maps::{EVENTS_0, EVENTS_1, EVENTS_2, EVENTS_3, WATCH};

/// What a program was called for. Each kind of program has helpers of its own.
pub(crate) trait Context: EbpfContext + Copy {
    /// The interface that the program is attached to.
    fn interface(self) -> IfIndex;
    /// The skb; null where there is none yet.
    fn skb(self) -> *mut __sk_buff;
}

/// Of a classifier.
#[derive(Clone, Copy)]
pub(crate) struct OfSkb(pub(crate) *mut __sk_buff);

impl EbpfContext for OfSkb {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.0.cast()
    }
}

impl Context for OfSkb {
    #[inline(always)]
    fn interface(self) -> IfIndex {
        // SAFETY: the kernel hands the program a context that is valid while the program runs.
        IfIndex::new(unsafe { (*self.0).ifindex })
    }

    #[inline(always)]
    fn skb(self) -> *mut __sk_buff {
        self.0
    }
}

/// Of an XDP program.
#[derive(Clone, Copy)]
pub(crate) struct OfXdp(pub(crate) *mut xdp_md);

impl EbpfContext for OfXdp {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.0.cast()
    }
}

impl Context for OfXdp {
    #[inline(always)]
    fn interface(self) -> IfIndex {
        // SAFETY: as above.
        IfIndex::new(unsafe { (*self.0).ingress_ifindex })
    }

    #[inline(always)]
    fn skb(self) -> *mut __sk_buff {
        core::ptr::null_mut()
    }
}

/// Tells what happened to a frame of `length` bytes, if somebody wants to hear of it: one look into an array where nobody does.
#[inline(always)]
pub(crate) fn tell<C: Context>(context: C, watch: Watch, length: u32, what: Happening) {
    let until = WATCH.get(watch.index()).copied().unwrap_or(0);
    if until != 0 {
        send(context, length, what.bits(), until);
    }
}

/// Apart from the decision, which is as long as it was.
#[inline(never)]
fn send<C: Context>(context: C, length: u32, what: u32, until: u32) {
    if until < now().0 {
        return;
    }
    let event = Event {
        // SAFETY: takes nothing and returns a number.
        time: unsafe { bpf_ktime_get_ns() },
        ifindex: context.interface(),
        length,
        snap: if length < Event::SNAP {
            length
        } else {
            Event::SNAP
        },
        what,
    };
    // Where nobody listens, or somebody reads too slowly, nothing is written; the kernel counts what a listener loses.
    for events in [&EVENTS_0, &EVENTS_1, &EVENTS_2, &EVENTS_3] {
        events.output(&context, &event, event.snap);
    }
}
