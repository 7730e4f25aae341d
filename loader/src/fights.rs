//! Does somebody undo again and again what the loader repairs? Each repair alone is a line in the log; a fight is trouble.

use crate::repairs::Repair;

/// So many rounds of a period in which the same kind of thing was repaired are too many …
const MANY: u32 = 8;
/// … when it was so in so many periods on end: much can break once.
const PERIODS: u32 = 2;

/// Of one kind of repairs.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    /// As of the last round.
    total: u64,
    /// Rounds of this period with repairs.
    rounds: u32,
    /// Periods on end with many.
    bad: u32,
}

/// Of all kinds, in the order of [`Repair::ALL`].
#[derive(Debug, Default)]
pub(crate) struct Fights([Kind; Repair::ALL.len()]);

impl Fights {
    /// A round of repairs is over.
    pub(crate) fn round(&mut self, total: impl Fn(Repair) -> u64) {
        for (repair, kind) in Repair::ALL.into_iter().zip(&mut self.0) {
            let total = total(repair);
            kind.rounds += u32::from(total > kind.total);
            kind.total = total;
        }
    }

    /// A period is over. What is fought about, if anything.
    pub(crate) fn period(&mut self) -> Option<String> {
        for kind in &mut self.0 {
            kind.bad = if kind.rounds < MANY { 0 } else { kind.bad + 1 };
            kind.rounds = 0;
        }
        let fought = Repair::ALL.into_iter().zip(&self.0);
        let fought = fought.filter(|(_, kind)| kind.bad >= PERIODS);
        let names: Vec<&str> = fought.map(|(repair, _)| repair.name()).collect();
        (!names.is_empty()).then(|| {
            format!(
                "somebody undoes again and again what the loader repairs ({}): its log says what that is; find out who, and stop one of the two",
                names.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_undoes_every_repair_is_told_and_who_breaks_much_once_is_not() {
        let mut fights = Fights::default();
        let mut ways = 0;
        let mut period = |fights: &mut Fights, repairs: u64| {
            for round in 0..15 {
                ways += u64::from(round < repairs);
                let total = |repair| if repair == Repair::Way { ways } else { 250 };
                fights.round(total);
            }
            fights.period()
        };
        assert_eq!(period(&mut fights, 15), None);
        let told = period(&mut fights, 15).unwrap();
        assert!(told.contains("(way)"), "{told}");
        assert!(period(&mut fights, 8).is_some());
        assert_eq!(period(&mut fights, 1), None);
        assert_eq!(period(&mut fights, 15), None);
    }
}
