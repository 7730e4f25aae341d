//! The moment of a restart: the whole matrix, while the loader dies, comes back, and finds its maps gone.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use lab::{Ipv4, Node, Sender, Stop};

use crate::cases::Expected::Dropped;
use crate::matrix::{Finding, Matrix, Row, Wrong, pairs};
use crate::{Result, Scene, Target};

/// All that shall be dropped, over and over, as fast as it goes: programs are exchanged within microseconds.
struct Flood {
    rows: Vec<Row>,
    sender: Sender,
    /// An honest datagram behind each round, and where it arrives: hardly more than a round is on its way, which queues hold.
    behind: Vec<u8>,
    arrives: UdpSocket,
    rounds: AtomicU64,
}

impl Flood {
    fn new(scene: &Scene, matrix: &mut Matrix<'_>) -> Result<Self> {
        const PORT: u16 = 9999;
        /// What a round waits for its end: maps that are still empty lose honest datagrams, too.
        const PAUSE: Duration = Duration::from_millis(200);
        let rows = pairs().map(|(case, target)| matrix.row(case, target));
        let mut rows = rows.collect::<Result<Vec<_>>>()?;
        rows.retain(|row| matches!(row.expected, Dropped(_)));
        let arrives = scene.near.run(|| Ok(UdpSocket::bind(("0.0.0.0", PORT))?))?;
        arrives.set_read_timeout(Some(PAUSE))?;
        let ends = scene.ends(Target::Near)?;
        let behind = Ipv4::udp((ends.own, PORT), (ends.to, PORT), b"behind");
        Ok(Self {
            rows,
            sender: scene.sender()?,
            behind: ends.frame(&behind),
            arrives,
            rounds: AtomicU64::new(0),
        })
    }

    fn run_until(&self, over: &AtomicBool) -> Result {
        while !over.load(Ordering::Relaxed) {
            for frame in self.rows.iter().flat_map(|row| &row.frames) {
                self.sender.send(frame)?;
            }
            self.sender.send(&self.behind)?;
            if let Err(error) = self.arrives.recv(&mut [0; 64]) {
                ensure!(error.kind() == ErrorKind::WouldBlock, error);
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }
}

/// Sends the matrix, and the flood, while the loader is killed and started over and over; `between` the two something else is done to
/// the node. Says what surfaced where it must not.
fn during_restarts(
    scene: &Scene,
    matrix: &mut Matrix<'_>,
    between: impl Fn(&Node) -> Result + Sync,
) -> Result<Vec<Finding>> {
    let node = scene.lab.node(1);
    let flood = Flood::new(scene, matrix)?;
    let over = AtomicBool::new(false);
    let restarts = || -> Result<u64> {
        let mut restarts = 0;
        while !over.load(Ordering::Relaxed) {
            node.loader().kill9()?;
            between(node)?;
            node.start_loader()?;
            restarts += 1;
        }
        Ok(restarts)
    };
    let mut wrong = std::thread::scope(|scope| {
        // Also when a frame cannot be sent, or this would wait for the restarts for ever.
        let stopping = Stop(&over);
        let flooding = scope.spawn(|| flood.run_until(&over));
        let restarting = scope.spawn(restarts);
        let wrong = matrix.pass(Matrix::surfacing)?;
        drop(stopping);
        flooding.join().expect("the flood does not panic")?;
        let restarts = restarting.join().expect("restarts do not panic")?;
        println!("{restarts} restarts met {} rounds", flood.rounds());
        assert!(restarts > 2 && flood.rounds() > 10 * restarts);
        anyhow::Ok(wrong)
    })?;
    for row in &flood.rows {
        let found = matrix.sent(row, flood.rounds())?;
        wrong.extend(found.map(|found| (row.case, row.target, found)));
    }
    Ok(wrong)
}

/// The node believes no ARP but the pod's own.
fn has_no_strange_neighbours(scene: &Scene) -> Result {
    let veth = scene.pod.host_veth()?;
    let known = scene
        .lab
        .node(1)
        .exec(&["ip", "neigh", "show", "dev", veth])?;
    let own = scene.pod.addr().to_string();
    assert!(known.lines().all(|line| line.starts_with(&own)), "{known}");
    Ok(())
}

#[test]
fn every_bad_frame_is_dropped_and_counted_while_the_loader_dies_and_comes_back() -> Result {
    let scene = Scene::new()?;
    let mut matrix = Matrix::new(&scene)?;
    let wrong = during_restarts(&scene, &mut matrix, |_| Ok(()))?;
    assert!(wrong.is_empty(), "{wrong:#?}");
    let miscounted = matrix.counted()?;
    assert!(miscounted.is_none(), "{miscounted:#?}");
    has_no_strange_neighbours(&scene)
}

/// New maps count from zero, and drop what is honest, too, while they are empty: only what surfaces is judged.
#[test]
fn nothing_bad_gets_through_while_the_loader_comes_back_and_finds_its_maps_gone() -> Result {
    let scene = Scene::new()?;
    let mut matrix = Matrix::new(&scene)?;
    let mut wrong = during_restarts(&scene, &mut matrix, |node| {
        node.exec(&["rm", "-r", "/sys/fs/bpf/azure-vnet"]).map(drop)
    })?;
    wrong.retain(|(_, _, wrong)| !matches!(wrong, Wrong::Lost(_)));
    assert!(wrong.is_empty(), "{wrong:#?}");
    has_no_strange_neighbours(&scene)
}
