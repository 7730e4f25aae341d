//! No loop in the eBPF object whose way back falls through: Linux 6.1 refuses it ("back-edge from insn"), newer ones do not.
//!
//! A walk in depth over the instructions, in the order in which that kernel's `check_cfg` walks.

use crate::workspace;
use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// Size of an instruction.
const SIZE: usize = 8;

pub(super) fn check() -> Result<()> {
    let path = workspace::bpf_object();
    let bytes =
        std::fs::read(&path).with_context(|| format!("read the eBPF object {}", path.display()))?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("understand {}", path.display()))?;
    let mut functions = 0;
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
    {
        let Some(index) = symbol.section_index().filter(|_| symbol.size() > 0) else {
            continue;
        };
        let code = file
            .section_by_index(index)?
            .data_range(symbol.address(), symbol.size())?;
        let name = symbol.name().unwrap_or("?");
        if let Some(at) = falls_back(code.unwrap_or_default()) {
            bail!(
                "{name}: instruction {at} ends the body of a loop and falls through to its head, which Linux 6.1 refuses; \
                 `cargo xtask vm 6.1` shows it, and xtask/src/build_ebpf.rs says which option keeps LLVM from it"
            );
        }
        functions += 1;
    }
    println!("{functions} functions, every way back in a loop is a jump");
    Ok(())
}

/// The first instruction that falls through to one that the walk came by on its way here.
fn falls_back(code: &[u8]) -> Option<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        OnTheWay,
        Done,
    }
    let mut states = vec![State::New; code.len() / SIZE];
    let mut way = vec![(0, 0)];
    *states.first_mut()? = State::OnTheWay;
    while let Some((at, edge)) = way.last_mut() {
        let at = *at;
        let Some((next, jump)) = edges(code, at).get(*edge).copied() else {
            *states.get_mut(at)? = State::Done;
            way.pop();
            continue;
        };
        *edge += 1;
        match states.get_mut(next) {
            Some(state @ State::New) => {
                *state = State::OnTheWay;
                way.push((next, 0));
            }
            Some(State::OnTheWay) if !jump => return Some(at),
            _ => {}
        }
    }
    None
}

/// Where instruction `at` leads, and whether that way may lead back.
fn edges(code: &[u8], at: usize) -> Vec<(usize, bool)> {
    const JMP: u8 = 5;
    const JMP32: u8 = 6;
    let Some(&[opcode, _, low, high, ..]) = code.get(at * SIZE..(at + 1) * SIZE) else {
        return Vec::new();
    };
    let target = (at + 1).checked_add_signed(isize::from(i16::from_le_bytes([low, high])));
    let jump = target.map(|target| (target, true));
    match (opcode & 7, opcode >> 4) {
        // exit
        (JMP, 9) => Vec::new(),
        // A call comes back; the function called is looked at by itself.
        (JMP, 8) => vec![(at + 1, false)],
        (JMP, 0) => jump.into_iter().collect(),
        (JMP | JMP32, _) => std::iter::once((at + 1, true)).chain(jump).collect(),
        _ => vec![(at + 1, false)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    const MOVE: [u8; 8] = [0xb7, 0, 0, 0, 0, 0, 0, 0];

    fn go(offset: i16) -> [u8; 8] {
        let [low, high] = offset.to_le_bytes();
        [0x05, 0, low, high, 0, 0, 0, 0]
    }

    fn go_if_equal(offset: i16) -> [u8; 8] {
        let [_, rest @ ..] = go(offset);
        let mut code = [0x15; 8];
        code[1..].copy_from_slice(&rest);
        code
    }

    #[test]
    fn a_loop_whose_body_falls_through_to_its_head_is_found() {
        let rotated = [go(1), MOVE, go_if_equal(-2), EXIT].concat();
        assert_eq!(falls_back(&rotated), Some(1));
    }

    #[test]
    fn loops_that_jump_back_and_code_without_loops_are_not() {
        let plain = [MOVE, go_if_equal(1), go(-3), EXIT].concat();
        assert_eq!(falls_back(&plain), None);
        let forwards = [go_if_equal(1), MOVE, MOVE, EXIT].concat();
        assert_eq!(falls_back(&forwards), None);
        assert_eq!(falls_back(&[]), None);
    }
}
