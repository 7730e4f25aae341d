//! The MTU of a path, discovered behind a router that only says "fragmentation needed".

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;

use lab::{Namespace, Trail};
use nix::errno::Errno;
use nix::libc;

use crate::{NARROW, Result, SOON, Scene};

/// Far more than one segment.
const BYTES: usize = 256 * 1024;

/// What the namespace has learnt of the path.
fn learnt(from: &Namespace, to: Ipv4Addr) -> Result<bool> {
    let route = from.exec(&["ip", "route", "get", &to.to_string()])?;
    Ok(route.contains(&format!("mtu {NARROW}")))
}

/// Sends many bytes to an echo server, and reads them back.
fn bulk(from: &Namespace, server: Ipv4Addr) -> Result {
    from.run(|| {
        let mut connection = TcpStream::connect((server, 7))?;
        connection.set_read_timeout(Some(SOON))?;
        let mut writer = connection.try_clone()?;
        let writing = std::thread::spawn(move || writer.write_all(&vec![0x5a; BYTES]));
        // First the server says who we are, in one line.
        let mut echoed = vec![0; BYTES];
        while echoed.first() != Some(&b'\n') {
            connection.read_exact(&mut echoed[..1])?;
        }
        connection.read_exact(&mut echoed)?;
        writing.join().expect("the writer does not panic")?;
        assert!(echoed.iter().all(|byte| *byte == 0x5a));
        Ok(())
    })
}

/// Each trail with a server at its end.
fn each_trail(work: impl Fn(&Scene, &Trail) -> Result) -> Result {
    let scene = Scene::new()?;
    for (trail, _) in scene.trails() {
        let _server = trail.end().serve_echo(7)?;
        assert!(!learnt(&scene.pod, trail.addr())?, "nothing is known yet");
        work(&scene, trail)?;
        assert!(learnt(&scene.pod, trail.addr())?, "{}", trail.addr());
    }
    Ok(())
}

#[test]
fn a_tcp_stream_learns_the_narrow_paths_mtu() -> Result {
    each_trail(|scene, trail| {
        bulk(&scene.pod, trail.addr())?;
        let dropped = scene.lab.fabric().dropped()?;
        assert!(dropped.values().all(|packets| *packets == 0), "{dropped:?}");
        Ok(())
    })
}

#[test]
fn a_tcp_stream_from_outside_to_a_pod_learns_the_narrow_paths_mtu() -> Result {
    let scene = Scene::new()?;
    let _server = scene.pod.serve_echo(7)?;
    bulk(scene.peered.end(), scene.pod.addr())?;
    assert!(learnt(&scene.pod, scene.peered.addr())?);
    Ok(())
}

/// Lets the kernel tell the socket about the path's MTU instead of fragmenting (ip(7), `IP_MTU_DISCOVER`).
fn discover_mtu(socket: &UdpSocket) -> Result {
    let value = libc::IP_PMTUDISC_DO;
    let length = libc::socklen_t::try_from(size_of_val(&value))?;
    // SAFETY: the pointer is to a live integer whose size is given; the kernel only reads it.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            length,
        )
    };
    Errno::result(failed)?;
    Ok(())
}

#[test]
fn udp_with_discovery_is_told_emsgsize_and_the_smaller_datagram_passes() -> Result {
    each_trail(|scene, trail| {
        scene.pod.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((trail.addr(), 7))?;
            socket.set_read_timeout(Some(SOON))?;
            discover_mtu(&socket)?;
            socket.send(&[1; 1450])?;
            // The error wakes the receiver.
            let error = socket.recv(&mut [0; 16]).expect_err("the path is narrow");
            let is = |errno: Errno| error.raw_os_error() == Some(errno as i32);
            assert!(is(Errno::EMSGSIZE), "{error}");
            let again = socket.send(&[1; 1450]).expect_err("and known to be");
            assert_eq!(again.raw_os_error(), Some(Errno::EMSGSIZE as i32));
            socket.send(&[2; 1300])?;
            let mut answer = [0; 2048];
            let length = socket.recv(&mut answer)?;
            assert!(
                answer
                    .get(..length)
                    .unwrap_or_default()
                    .ends_with(&[2; 1300])
            );
            Ok(())
        })
    })
}

#[test]
fn ping_is_told_the_mtu_and_passes_with_what_fits() -> Result {
    each_trail(|scene, trail| {
        let target = trail.addr().to_string();
        let ping = |size: &str| {
            let line = ["ping", "-Mdo", "-c1", "-W2", "-s", size, &target];
            scene.pod.feed(&line, b"")
        };
        let refused = ping("1450")?;
        let text = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(
            text.contains("mtu = 1400") || refused.stderr.contains("mtu"),
            "{text}"
        );
        assert!(!refused.status.success());
        assert!(
            ping("1372")?.status.success(),
            "1400 bytes with both headers"
        );
        assert!(!ping("1373")?.status.success());
        Ok(())
    })
}
