//! What a watch makes of what nodes say.

use calamus_proto::v1::watch_change::Kind;
use calamus_proto::v1::{
    PutChange, WatchBegin, WatchChange, WatchNotHeld, WatchPosition, WatchProgress, WatchTransaction,
};

use super::*;
use crate::client::Options;
use crate::scripted_test::{Fake, cluster};

#[test]
fn a_position_is_read_as_it_was_written() {
    let whole = Position { database_id: "0123456789abcdef0123456789abcdef".to_owned(), timeline: 7, txn_id: 42 };
    for position in [whole, Position::after_txn(9)] {
        assert_eq!(format!("{position}\n").parse(), Ok(position));
    }
    for bad in ["", "7", "/1/", "/1/x", "0123/1/2", "x123456789abcdef0123456789abcdef/1/2", "/1/2/3", "/-1/2"] {
        assert_eq!(bad.parse::<Position>(), Err(PositionError), "{bad}");
    }
}

#[test]
fn an_error_says_what_can_be_gone_on_from() {
    let position = Position { database_id: String::new(), timeline: 1, txn_id: 5 };
    let oldest = Box::new(Position { txn_id: 70, ..position.clone() });
    let unasked = vec![("n3".to_owned(), "c:3".to_owned())];
    let asked = vec!["a:1".to_owned(), "b:2".to_owned()];
    let text = WatchError::NotHeld { position: position.clone(), oldest, asked, unasked }.to_string();
    assert!(text.contains("a:1, b:2") && text.contains("txn 70") && text.contains("n3 (c:3)"), "{text}");
    let other = |forked_at_txn| {
        let (position, database_id) = (position.clone(), "ab".to_owned());
        WatchError::OtherTimeline { position, database_id, timeline: 9, forked_at_txn }.to_string()
    };
    assert!(other(Some(8)).contains("go on behind txn 8"), "{}", other(Some(8)));
    assert!(other(Some(4)).contains("is not in it"), "{}", other(Some(4)));
    assert!(other(None).contains("begin from a scan"));
}

const DATABASE: &str = "0123456789abcdef0123456789abcdef";

fn at(txn_id: u64) -> WatchPosition {
    WatchPosition { database_id: DATABASE.to_owned(), timeline: 3, txn_id }
}

fn said(event: Event) -> WatchResponse {
    WatchResponse { event: Some(event) }
}

fn begin(txn_id: u64) -> WatchResponse {
    said(Event::Begin(WatchBegin { position: Some(at(txn_id)), ..WatchBegin::default() }))
}

fn progress(txn_id: u64) -> WatchResponse {
    said(Event::Progress(WatchProgress { txn_id, read_point: None }))
}

fn part(follows: u64, txn_id: u64, keys: &[&'static str], more: bool) -> WatchResponse {
    let put = |key: &&'static str| {
        let put = PutChange { key: (*key).into(), value: "v".into() };
        WatchChange { tree: 0, kind: Some(Kind::Put(put)) }
    };
    let (trees, changes) = (vec!["t".to_owned()], keys.iter().map(put).collect());
    said(Event::Transaction(WatchTransaction { txn_id, follows, trees, changes, more, ..WatchTransaction::default() }))
}

fn txn(follows: u64, txn_id: u64) -> WatchResponse {
    part(follows, txn_id, &["k"], false)
}

fn without_a_name(follows: u64, txn_id: u64) -> WatchResponse {
    let changes = vec![WatchChange { tree: 1, kind: None }];
    let trees = vec!["t".to_owned()];
    said(Event::Transaction(WatchTransaction { txn_id, follows, trees, changes, ..WatchTransaction::default() }))
}

fn not_held(oldest: u64) -> WatchResponse {
    let members = vec![Member { name: "n9".to_owned(), address: "far:9".to_owned(), ..Member::default() }];
    let why = Some(watch_end::Why::NotHeld(WatchNotHeld { oldest: Some(at(oldest)), members }));
    said(Event::End(WatchEnd { why }))
}

fn will_say(fake: &Fake, watches: impl IntoIterator<Item = Vec<WatchResponse>>) {
    fake.script.lock().unwrap().watches.extend(watches);
}

/// Starts of the watches that a node was asked for.
fn starts(fake: &Fake) -> Vec<Option<Start>> {
    fake.script.lock().unwrap().watch_requests.iter().map(|request| request.start.clone()).collect()
}

async fn watch(fakes: &[Fake], from: WatchFrom) -> Watch {
    let addresses: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    let options = Options { deadline: Duration::from_secs(3), ..Options::default() };
    let client = Client::connect(addresses, options).await.unwrap();
    client.watch("t", WatchOptions { from, ..WatchOptions::default() })
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_when_a_stream_breaks() {
    let fakes = cluster(1);
    // The second one breaks within a transaction: what has come of that is forgotten.
    will_say(
        &fakes[0],
        [
            vec![begin(5), txn(5, 7), progress(9)],
            vec![begin(9), part(9, 11, &["a"], true)],
            vec![begin(9), part(9, 11, &["a"], true), part(9, 11, &["b", "c"], false), txn(11, 12)],
        ],
    );
    let mut watch = watch(&fakes, WatchFrom::Oldest).await;
    let mut found = Vec::new();
    for _ in 0..3 {
        let txn = watch.next().await.unwrap();
        assert!(txn.changes.iter().all(|(tree, _)| tree == "t"));
        found.push((txn.txn_id, txn.changes.len(), watch.position().unwrap().txn_id));
    }
    assert_eq!(found, [(7, 1, 7), (11, 3, 11), (12, 1, 12)]);
    assert_eq!(
        starts(&fakes[0]),
        [Some(Start::Oldest(WatchOldest {})), Some(Start::After(at(9))), Some(Start::After(at(9)))]
    );
    let error = watch.next().await.unwrap_err();
    assert!(matches!(error, WatchError::Unavailable(_)), "{error}");
    // Asked again, it goes on.
    will_say(&fakes[0], [vec![begin(12), txn(12, 13)]]);
    assert_eq!(watch.next().await.unwrap().txn_id, 13);
}

/// Who keeps positions must have one before the first transaction comes: what came while he was away is else passed over.
#[tokio::test]
async fn a_watch_says_where_it_begins_before_anything_comes() {
    let fakes = cluster(1);
    will_say(&fakes[0], [vec![begin(5), progress(8), txn(8, 9)]]);
    let mut watch = watch(&fakes, WatchFrom::Now).await;
    let mut found = Vec::new();
    for _ in 0..3 {
        let event = watch.next_event().await.unwrap();
        found.push((matches!(event, WatchEvent::Txn(_)), watch.position().unwrap().txn_id));
        assert!(found.len() > 1 || event == WatchEvent::Began(at(5).into()), "{event:?}");
    }
    assert_eq!(found, [(false, 5), (false, 8), (true, 9)]);
}

#[tokio::test]
async fn what_comes_twice_too_late_or_behind_a_gap_is_an_error_and_never_delivered() {
    let bad = [
        vec![begin(5), txn(5, 7), txn(5, 7)],
        vec![begin(5), txn(5, 7), txn(7, 7)],
        vec![begin(5), txn(5, 7), txn(8, 9)],
        vec![begin(5), txn(5, 7), txn(7, 6)],
        vec![begin(5), txn(5, 7), progress(6)],
        vec![begin(5), txn(5, 7), part(7, 8, &["a"], true), part(7, 9, &["a"], false)],
        vec![begin(5), txn(5, 7), part(7, 8, &["a"], true), progress(8)],
        vec![begin(5), txn(5, 7), without_a_name(7, 8)],
    ];
    for messages in bad {
        let fakes = cluster(1);
        will_say(&fakes[0], [messages.clone()]);
        let mut watch = watch(&fakes, WatchFrom::Now).await;
        assert_eq!(watch.next().await.unwrap().txn_id, 7);
        let error = watch.next().await.unwrap_err();
        assert!(matches!(error, WatchError::OutOfOrder { .. }), "{messages:?}: {error}");
    }
    let fakes = cluster(1);
    will_say(&fakes[0], [vec![begin(5)]]);
    let mut watch = watch(&fakes, WatchFrom::After(Position::after_txn(4))).await;
    assert!(matches!(watch.next().await, Err(WatchError::OutOfOrder { .. })), "a gap at the beginning");
}

#[tokio::test]
async fn a_position_that_one_node_does_not_hold_is_asked_for_at_all_others() {
    let fakes = cluster(3);
    for (fake, oldest) in fakes.iter().zip([90, 70, 80]) {
        will_say(fake, [vec![not_held(oldest)]]);
    }
    let mut refused = watch(&fakes, WatchFrom::After(Position::after_txn(5))).await;
    match refused.next().await.unwrap_err() {
        WatchError::NotHeld { oldest, asked, unasked, .. } => {
            assert_eq!((oldest.txn_id, asked.len()), (70, 3));
            assert_eq!(unasked, [("n9".to_owned(), "far:9".to_owned())]);
        }
        other => panic!("{other}"),
    }
    assert!(fakes.iter().all(|fake| starts(fake).len() == 1), "each of them once");
    will_say(&fakes[0], [vec![not_held(90)], vec![not_held(90)]]);
    will_say(&fakes[1], [vec![not_held(70)], vec![not_held(70)]]);
    will_say(&fakes[2], [vec![begin(5), txn(5, 6)]]);
    let mut watch = watch(&fakes, WatchFrom::After(Position::after_txn(5))).await;
    assert_eq!(watch.next().await.unwrap().txn_id, 6);
    assert_eq!(watch.node(), Some(fakes[2].address.as_str()));
}
