use std::io;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::test_peers::*;
use super::*;

const HOLD: Fault = Fault {
    to_target: Flow::Hold,
    to_client: Flow::Hold,
    connections: Connections::Accept,
    at_heal: AtHeal::Deliver,
    flap: None,
};

/// Bytes that are different at every place near each other.
fn many(count: usize) -> Vec<u8> {
    (0..count).map(|place| (place % 251) as u8).collect()
}

#[tokio::test]
async fn without_a_fault_bytes_and_ends_pass_and_are_counted() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    let bytes = many(3 << 20);
    let (mut read_half, mut write_half) = client.split();
    tokio::join!(
        async { soon(write_half.write_all(&bytes)).await.expect("the proxy takes bytes") },
        receives(&mut server, &bytes)
    );
    // One side ends, the other one goes on.
    soon(write_half.shutdown()).await.expect("the proxy takes the end");
    is_ended(&mut server).await;
    send(&mut server, b"still here").await;
    let mut rest = [0; 10];
    soon(read_half.read_exact(&mut rest)).await.expect("the other direction is open");
    drop(server);
    is_ended(&mut client).await;
    let counted = proxy.counters();
    assert_eq!((counted.bytes_to_target, counted.bytes_to_client), (bytes.len() as u64 + 8, 18));
    assert_eq!((counted.connections, counted.resets), (1, 0));
}

#[tokio::test]
async fn a_target_can_be_named_by_host_and_port_and_one_that_is_not_there_is_a_reset() {
    let target = Target::start().await;
    let proxy = FaultProxy::start(format!("localhost:{}", target.address.port())).await.expect("a free port");
    connected(proxy.address(), &target).await;
    drop(target);
    let mut client = TcpStream::connect(proxy.address()).await.expect("the proxy accepts");
    is_reset(&mut client).await;
}

#[tokio::test]
async fn a_reset_by_one_side_is_a_reset_for_the_other() {
    let (proxy, target) = proxy_and_target().await;
    let (client, mut server) = connected(proxy.address(), &target).await;
    client.set_zero_linger().expect("it is open");
    drop(client);
    is_reset(&mut server).await;
    let (mut client, server) = connected(proxy.address(), &target).await;
    server.set_zero_linger().expect("it is open");
    drop(server);
    is_reset(&mut client).await;
}

#[tokio::test]
async fn a_cut_resets_what_exists_and_what_comes_until_it_is_healed() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    proxy.set(Fault::cut(Connections::Reset)).await.expect("set");
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    let mut new = TcpStream::connect(proxy.address()).await.expect("it is accepted first");
    is_reset(&mut new).await;
    target.accepts_nothing().await;
    assert_eq!(proxy.counters().resets, 2);
    proxy.set(Fault::pass()).await.expect("set");
    connected(proxy.address(), &target).await;
}

#[tokio::test]
async fn a_cut_can_refuse_what_comes_and_the_port_is_kept() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    for _ in 0..3 {
        proxy.set(Fault::cut(Connections::Refuse)).await.expect("set");
        is_reset(&mut client).await;
        is_reset(&mut server).await;
        let refused = TcpStream::connect(proxy.address()).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        proxy.set(Fault::pass()).await.expect("the port is still ours");
        (client, server) = connected(proxy.address(), &target).await;
    }
}

#[tokio::test]
async fn a_hold_keeps_bytes_back_and_delivers_them_in_order_when_it_ends() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    proxy.set(HOLD).await.expect("set");
    send(&mut client, b"first").await;
    send(&mut server, b"answer").await;
    receives_nothing(&mut server).await;
    receives_nothing(&mut client).await;
    // Another fault, which holds as well, lets nothing go.
    proxy.set(Fault { flap: Some(Duration::from_secs(3600)), ..HOLD }).await.expect("set");
    send(&mut client, b"second").await;
    receives_nothing(&mut server).await;
    proxy.set(Fault::pass()).await.expect("set");
    receives(&mut server, b"firstsecond").await;
    receives(&mut client, b"answer").await;
}

#[tokio::test]
async fn a_direction_is_held_alone() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    proxy.set(Fault::blackhole(Directions::ToTarget, AtHeal::Deliver)).await.expect("set");
    send(&mut client, b"question").await;
    passes(&mut server, &mut client).await;
    receives_nothing(&mut server).await;
    proxy.set(Fault::blackhole(Directions::ToClient, AtHeal::Deliver)).await.expect("set");
    receives(&mut server, b"question").await;
    send(&mut server, b"answer").await;
    passes(&mut client, &mut server).await;
    receives_nothing(&mut client).await;
    proxy.set(Fault::pass()).await.expect("set");
    receives(&mut client, b"answer").await;
}

#[tokio::test]
async fn a_hold_that_ends_with_a_reset_delivers_nothing_of_what_it_kept() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    proxy.set(Fault::blackhole(Directions::Both, AtHeal::Reset)).await.expect("set");
    send(&mut client, b"lost").await;
    receives_nothing(&mut server).await;
    proxy.set(Fault::pass()).await.expect("set");
    is_reset(&mut server).await;
    is_reset(&mut client).await;
    connected(proxy.address(), &target).await;
}

#[tokio::test]
async fn a_new_connection_during_a_hold_is_accepted_and_reaches_the_target_when_it_ends() {
    let (proxy, target) = proxy_and_target().await;
    proxy.set(HOLD).await.expect("set");
    let mut client = TcpStream::connect(proxy.address()).await.expect("the proxy accepts");
    send(&mut client, b"hello").await;
    target.accepts_nothing().await;
    proxy.set(Fault::pass()).await.expect("set");
    let mut server = target.accept().await;
    receives(&mut server, b"hello").await;
}

#[tokio::test]
async fn a_hold_keeps_ends_and_resets_back_too() {
    let (proxy, target) = proxy_and_target().await;
    let (mut ending, mut ending_server) = connected(proxy.address(), &target).await;
    let (breaking, mut breaking_server) = connected(proxy.address(), &target).await;
    proxy.set(Fault::blackhole(Directions::ToTarget, AtHeal::Deliver)).await.expect("set");
    ending.shutdown().await.expect("the proxy takes the end");
    breaking.set_zero_linger().expect("it is open");
    drop(breaking);
    // Its answers have nowhere to go, and it must not learn that.
    send(&mut breaking_server, b"to nobody").await;
    receives_nothing(&mut ending_server).await;
    receives_nothing(&mut breaking_server).await;
    proxy.set(Fault::pass()).await.expect("set");
    is_ended(&mut ending_server).await;
    is_reset(&mut breaking_server).await;
}

#[tokio::test]
async fn a_hold_takes_a_bounded_amount_and_then_the_sender_waits() {
    const MOST: usize = 64 << 20;
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    proxy.set(HOLD).await.expect("set");
    let piece = many(251 << 8);
    let mut sent = 0;
    // Until the sender has had to wait for a while.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(200), client.write(&piece[sent % 251..])).await {
        sent += written.expect("the connection lives");
        assert!(sent < MOST, "{sent} bytes were taken");
    }
    assert!(sent > 1 << 20, "the queue takes some: {sent}");
    proxy.set(Fault::pass()).await.expect("set");
    receives(&mut server, &many(sent)).await;
}

#[tokio::test]
async fn a_delay_delays_each_piece_and_keeps_the_order() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    let (delay, jitter) = (Duration::from_millis(60), Duration::from_millis(20));
    proxy.set(Fault::delay(delay, jitter)).await.expect("set");
    let began = Instant::now();
    for number in 0..20u8 {
        send(&mut client, &[number; 100]).await;
    }
    let expected: Vec<u8> = (0..20u8).flat_map(|number| [number; 100]).collect();
    receives(&mut server, &expected).await;
    assert!(began.elapsed() >= delay - jitter, "{:?}", began.elapsed());
    let began = Instant::now();
    send(&mut server, b"back").await;
    receives(&mut client, b"back").await;
    assert!(began.elapsed() >= delay - jitter, "{:?}", began.elapsed());
    // What is on its way when the delay ends comes at once.
    proxy.set(Fault::delay(Duration::from_secs(3600), Duration::ZERO)).await.expect("set");
    send(&mut client, b"late").await;
    receives_nothing(&mut server).await;
    proxy.set(Fault::pass()).await.expect("set");
    receives(&mut server, b"late").await;
}

#[tokio::test]
async fn a_throttle_gives_all_connections_together_so_many_bytes_a_second() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    let (mut other, mut other_server) = connected(proxy.address(), &target).await;
    proxy.set(Fault::throttle(NonZeroU64::new(1 << 20).expect("it is not zero"))).await.expect("set");
    let bytes = many(128 << 10);
    let began = Instant::now();
    tokio::join!(
        send(&mut client, &bytes),
        receives(&mut server, &bytes),
        send(&mut other, &bytes),
        receives(&mut other_server, &bytes)
    );
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_reset_now_resets_once() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    let (mut other, _other_server) = connected(proxy.address(), &target).await;
    proxy.reset().await;
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    is_reset(&mut other).await;
    assert_eq!(proxy.counters().resets, 2);
    connected(proxy.address(), &target).await;
}

#[tokio::test]
async fn a_flapping_network_resets_one_connection_after_the_other() {
    let (proxy, target) = proxy_and_target().await;
    let (mut first, _first_server) = connected(proxy.address(), &target).await;
    let (mut second, _second_server) = connected(proxy.address(), &target).await;
    let began = Instant::now();
    proxy.set(Fault::flap(Duration::from_millis(30))).await.expect("set");
    is_reset(&mut first).await;
    is_reset(&mut second).await;
    assert!(began.elapsed() >= Duration::from_millis(60), "both at once: {:?}", began.elapsed());
    assert_eq!(proxy.counters().resets, 2);
}

#[tokio::test]
async fn a_proxy_that_is_dropped_resets_its_connections_and_gives_up_its_port() {
    let (proxy, target) = proxy_and_target().await;
    let (mut client, mut server) = connected(proxy.address(), &target).await;
    proxy.set(HOLD).await.expect("set");
    let address = proxy.address();
    drop(proxy);
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    soon(async {
        // The task ends a moment after the drop; the port is free once it has.
        while tokio::net::TcpListener::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
