//! The matrix: every kind of bad frame to every target.

use crate::cases::Expected::{Arrives, Dropped};
use crate::cases::{CASES, Case};
use crate::observers::{Drops, Observers, drops};
use crate::{Ends, Result, Scene, Target};

/// The running matrix.
struct Matrix {
    scene: Scene,
    observers: Observers,
    dropped: Drops,
    rows: u16,
}

impl Matrix {
    /// Sends the frames of one case to one target, and an honest datagram behind them; says what is wrong, if anything is.
    fn check(&mut self, case: &Case, target: Target) -> Result<Option<String>> {
        self.rows += 1;
        // A flow for each row: none is where it is because of the one before.
        let ends = Ends {
            port: 4000 + self.rows,
            ..self.scene.ends(target)?
        };
        let mark = format!("<bad {:05}>", self.rows).into_bytes();
        let behind = format!("<good {:05}>", self.rows).into_bytes();
        let frames = (case.frames)(&ends, &mark);
        let sender = self.scene.sender()?;
        for frame in &frames {
            sender.send(frame)?;
        }
        sender.send(&ends.frame(&ends.honest(&behind)))?;
        let right = self.scene.source(target);
        if self.observers.arrival(target, &behind) != Some(right) {
            return Ok(Some("the honest datagram behind it did not arrive".into()));
        }

        let expected = (case.expected)(target);
        if matches!(expected, Arrives) && self.observers.arrival(target, &mark) != Some(right) {
            return Ok(Some("did not arrive".into()));
        }
        let mut sources = self.observers.sources(&mark);
        if matches!(expected, Arrives) {
            // On its way through the node it has the pod's own address.
            sources.retain(|source| ![ends.own, right].contains(source));
        }
        if !sources.is_empty() {
            return Ok(Some(format!("surfaced with source {sources:?}")));
        }
        let mut counted = self.dropped.clone();
        if let Dropped(reason) = expected {
            *counted.entry(reason.to_owned()).or_default() += u64::try_from(frames.len())?;
        }
        self.dropped = drops(&self.scene)?;
        let off = self.dropped != counted;
        Ok(off.then(|| format!("counted {:?} instead of {counted:?}", self.dropped)))
    }
}

#[test]
fn every_bad_frame_to_every_target_is_dropped_counted_or_harmless() -> Result {
    let scene = Scene::new()?;
    let mut matrix = Matrix {
        observers: Observers::new(&scene)?,
        dropped: drops(&scene)?,
        scene,
        rows: 0,
    };
    let mut wrong = Vec::new();
    for (case, target) in CASES
        .iter()
        .flat_map(|case| Target::ALL.map(|target| (case, target)))
    {
        if let Some(why) = matrix.check(case, target)? {
            wrong.push(format!("{} to {target:?}: {why}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
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
