//! The matrix: every kind of bad frame to every target.

use std::net::Ipv4Addr;

use crate::cases::Expected::{self, Arrives, Dropped, Gone};
use crate::cases::{CASES, Case};
use crate::observers::{Drops, Observers, drops};
use crate::{Ends, Result, Scene, Target};

/// What came of a frame that should not have.
#[derive(Debug)]
#[expect(dead_code, reason = "who reads it reads the test's output")]
pub(crate) enum Wrong {
    Lost(&'static str),
    /// With these sources.
    Surfaced(Vec<Ipv4Addr>),
    Counted {
        counted: Drops,
        expected: Drops,
    },
}

/// A case, a target, and what was wrong.
pub(crate) type Finding = (&'static str, Target, Wrong);

/// One case to one target.
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) target: Target,
    ends: Ends,
    mark: Vec<u8>,
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) expected: Expected,
}

/// The running matrix.
pub(crate) struct Matrix<'scene> {
    scene: &'scene Scene,
    observers: Observers,
    /// What shall have been dropped by now.
    dropped: Drops,
    rows: u16,
}

impl<'scene> Matrix<'scene> {
    pub(crate) fn new(scene: &'scene Scene) -> Result<Self> {
        Ok(Self {
            scene,
            observers: Observers::new(scene)?,
            dropped: drops(scene)?,
            rows: 0,
        })
    }

    /// Every case to every target; what `check` says is wrong.
    pub(crate) fn pass(
        &mut self,
        check: impl Fn(&mut Self, &Case, Target) -> Result<Option<Wrong>>,
    ) -> Result<Vec<Finding>> {
        let mut wrong = Vec::new();
        for (case, target) in pairs() {
            if let Some(why) = check(self, case, target)? {
                wrong.push((case.name, target, why));
            }
        }
        Ok(wrong)
    }

    /// The frames of one case to one target, in a flow of their own: none is where it is because of another one.
    pub(crate) fn row(&mut self, case: &Case, target: Target) -> Result<Row> {
        self.rows += 1;
        let ends = Ends {
            port: 4000 + self.rows,
            ..self.scene.ends(target)?
        };
        let mark = format!("<bad {:05}>", self.rows).into_bytes();
        let frames = (case.frames)(&ends, &mark);
        let expected = (case.expected)(target);
        Ok(Row {
            case: case.name,
            target,
            ends,
            mark,
            frames,
            expected,
        })
    }

    /// Sends one case to one target, and an honest datagram behind it; says what is wrong with what surfaces where, if anything is.
    pub(crate) fn surfacing(&mut self, case: &Case, target: Target) -> Result<Option<Wrong>> {
        let row = self.row(case, target)?;
        let sender = self.scene.sender()?;
        for frame in &row.frames {
            sender.send(frame)?;
        }
        let ends = &row.ends;
        let behind = format!("<good {:05}>", self.rows).into_bytes();
        sender.send(&ends.frame(&ends.honest(&behind)))?;
        let right = self.scene.source(target);
        let mut lost = None;
        if self.observers.arrival(target, &behind) != Some(right) {
            lost = Some(Wrong::Lost("the honest datagram behind it"));
        }
        if matches!(row.expected, Arrives)
            && self.observers.arrival(target, &row.mark) != Some(right)
        {
            lost = Some(Wrong::Lost("itself"));
        }
        Ok(self.sent(&row, 1)?.or(lost))
    }

    /// Takes note that a row has been sent so many times, all of it by now processed; says what surfaced that should not have.
    pub(crate) fn sent(&mut self, row: &Row, times: u64) -> Result<Option<Wrong>> {
        let mut sources = self.observers.sources(&row.mark);
        match row.expected {
            Dropped(reason) => {
                let frames = u64::try_from(row.frames.len())?;
                *self.dropped.entry(reason.to_owned()).or_default() += frames * times;
            }
            Arrives => {
                // On its way through the node it has the pod's own address.
                let right = [row.ends.own, self.scene.source(row.target)];
                sources.retain(|source| !right.contains(source));
            }
            Gone => {}
        }
        Ok((!sources.is_empty()).then_some(Wrong::Surfaced(sources)))
    }

    /// Whether the counters say other than what shall have been dropped, since they were asked last.
    pub(crate) fn counted(&mut self) -> Result<Option<Wrong>> {
        let counted = drops(self.scene)?;
        let expected = std::mem::replace(&mut self.dropped, counted.clone());
        Ok((counted != expected).then_some(Wrong::Counted { counted, expected }))
    }
}

/// Every case with every target.
pub(crate) fn pairs() -> impl Iterator<Item = (&'static Case, Target)> {
    let targets = |case| Target::ALL.map(|target| (case, target));
    CASES.iter().flat_map(targets)
}

#[test]
fn every_bad_frame_to_every_target_is_dropped_counted_or_harmless() -> Result {
    let scene = Scene::new()?;
    let wrong = Matrix::new(&scene)?.pass(|matrix, case, target| {
        let surfacing = matrix.surfacing(case, target)?;
        let counted = matrix.counted()?;
        Ok(surfacing.or(counted))
    })?;
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    Ok(())
}

#[test]
fn an_arp_request_of_a_pod_gets_one_answer_the_hosts() -> Result {
    let scene = Scene::new()?;
    let capture = scene.pod.capture("eth0")?;
    let others = [
        scene.near.capture("eth0")?,
        scene.lab.node(1).capture("eth0")?,
    ];
    for target in Target::ALL {
        let ends = scene.ends(target)?;
        let request = lab::frame::arp_request(ends.mac, ends.own, ends.to);
        scene.pod.send_raw(&request)?;
        let reply = capture.wait_for(crate::SOON, |frame| {
            lab::frame::arp_reply(frame, ends.to).is_some()
        });
        let reply = reply.and_then(|frame| lab::frame::arp_reply(&frame, ends.to));
        assert_eq!(reply, Some(ends.host_mac), "{target:?}");
        let is_request = |frame: &Vec<u8>| frame == &request;
        assert!(
            !others.iter().any(|c| c.frames().iter().any(is_request)),
            "pods share no L2"
        );
    }
    Ok(())
}
