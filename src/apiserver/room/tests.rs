use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;

use super::*;

const WITH_BODY: Load = Load { body: HEAVY, object: 0, passing: 0 };
const WITHOUT: Load = Load { body: 0, object: HEAVY, passing: 0 };

fn job(load: Load) -> Job {
    Job { load, work: async {}.boxed() }
}

fn begin(line: &mut Line) -> Option<String> {
    line.begin().map(|(turn, _)| turn)
}

#[test]
fn users_take_turns_and_none_fills_the_line() {
    let mut line = Line::default();
    for _ in 0..WAITING_OF_ONE {
        line.push("a", job(WITH_BODY)).unwrap();
    }
    assert!(line.push("a", job(WITH_BODY)).is_err());
    line.push("b", job(WITH_BODY)).unwrap();
    line.push("c", job(WITH_BODY)).unwrap();
    let mut order = Vec::new();
    while let Some((turn, job)) = line.begin() {
        line.end(&turn, job.load);
        order.push(turn);
    }
    assert_eq!(order, ["a", "b", "c", "a", "a", "a"]);
    assert_eq!((line.with_body, line.begun, line.begun_bytes, line.by_turn.len()), (0, 0, 0, 0));
    for i in 0..WAITING {
        line.push(&format!("u{i}"), job(WITH_BODY)).unwrap();
    }
    assert!(line.push("v", job(WITH_BODY)).is_err());
    // Without a body nothing is held, so that a list or a watch waits for its turn.
    line.push("v", job(WITHOUT)).unwrap();
}

#[test]
fn few_have_begun_and_of_one_user_fewer() {
    let mut line = Line::default();
    for turn in ["a", "a", "a", "b", user::MASTERS, user::MASTERS, user::MASTERS, "c", "d", "e"] {
        line.push(turn, job(WITHOUT)).unwrap();
    }
    let begun: Vec<String> = std::iter::from_fn(|| begin(&mut line)).collect();
    assert_eq!(begun, ["a", "b", user::MASTERS, "c", "d", "e", "a", user::MASTERS]);
    line.end("b", WITHOUT);
    assert_eq!(begin(&mut line).as_deref(), Some(user::MASTERS), "a has had its share");
    line.end("a", WITHOUT);
    assert_eq!(begin(&mut line).as_deref(), Some("a"));
}

#[test]
fn what_has_begun_holds_so_much_and_a_large_one_begins_alone() {
    let half = Load { body: BEGUN_BYTES / 2, ..Load::default() };
    let large = Load { body: BEGUN_BYTES, object: BEGUN_BYTES, passing: 0 };
    let mut line = Line::default();
    for (turn, load) in [("a", half), ("b", half), ("c", large), ("d", half)] {
        line.push(turn, job(load)).unwrap();
    }
    assert_eq!((begin(&mut line).as_deref(), begin(&mut line).as_deref()), (Some("a"), Some("b")));
    line.end("a", half);
    assert_eq!(begin(&mut line), None, "the large one is next");
    line.end("b", half);
    assert_eq!((begin(&mut line).as_deref(), begin(&mut line)), (Some("c"), None));
    line.end("c", large);
    assert_eq!(begin(&mut line).as_deref(), Some("d"));
}

#[test]
fn service_accounts_of_a_namespace_share_a_turn() {
    let account = |namespace: &str, name: &str| {
        let group = format!("system:serviceaccounts:{namespace}");
        let name = format!("system:serviceaccount:{namespace}:{name}");
        User::authenticated(&name, &[user::SERVICE_ACCOUNTS, &group])
    };
    assert_eq!(turn(&account("shop", "a")), turn(&account("shop", "b")));
    assert_ne!(turn(&account("shop", "a")), turn(&account("blog", "a")));
    assert_ne!(turn(&account("kube-system", "a")), turn(&account("kube-system", "b")));
    // A name alone makes nobody a service account.
    let named = |name: &str| User::authenticated(name, &[]);
    assert_ne!(turn(&named("system:serviceaccount:shop:a")), turn(&named("system:serviceaccount:shop:b")));
    assert_eq!(turn(&User::authenticated("root", &[user::MASTERS])), user::MASTERS);
    let mut line = Line::default();
    for i in 0..WAITING_OF_ONE {
        line.push(turn(&account("shop", &format!("a{i}"))), job(WITH_BODY)).unwrap();
    }
    assert!(line.push(turn(&account("shop", "b")), job(WITH_BODY)).is_err(), "the namespace has had its share");
    line.push(turn(&account("blog", "a")), job(WITH_BODY)).unwrap();
}

struct Ends(Arc<AtomicUsize>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_full_room_refuses_and_work_ends_with_its_client() {
    let room = HeavyRoom::open().unwrap();
    let (entered, ended) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let endless = |_: Client| {
        let (entered, guard) = (Arc::clone(&entered), Ends(Arc::clone(&ended)));
        async move {
            let _guard = guard;
            entered.notify_one();
            std::future::pending::<Result<(), ApiError>>().await
        }
    };
    {
        let users: Vec<String> = (0..BEGUN).map(|i| format!("busy{i}")).collect();
        let mut busy = Vec::new();
        for user in &users {
            let mut one = Box::pin(room.run(user, WITH_BODY, endless));
            tokio::select! { _ = &mut one => unreachable!(), () = entered.notified() => busy.push(one) }
        }
        let mut waiting = Box::pin(join_all((0..WAITING_OF_ONE).map(|_| room.run("a", WITH_BODY, endless))));
        assert!(futures::poll!(&mut waiting).is_pending());
        let refused = room.run("a", WITH_BODY, |_| async { Ok(()) }).await.unwrap_err();
        assert!(matches!(refused, ApiError::TooManyRequests { .. }), "{refused}");
    }
    // All clients are gone: what ran has ended, what waited never runs, and the room is free.
    assert_eq!(room.run("b", WITH_BODY, |_| async { Ok(7) }).await.unwrap(), 7);
    let panics = room.run("b", WITH_BODY, |_| async { if true { panic!("as meant") } else { Ok(()) } }).await;
    assert!(matches!(panics, Err(ApiError::Internal(_))));
    assert_eq!(room.run("b", WITH_BODY, |_| async { Ok(8) }).await.unwrap(), 8);
    // Those that waited are dropped when it is their turn, be it after the work of others.
    let all_ended = async {
        while ended.load(Ordering::SeqCst) < BEGUN + WAITING_OF_ONE {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), all_ended).await.unwrap();
}

#[tokio::test]
async fn a_request_that_waits_for_the_store_leaves_the_thread_to_others() {
    let room = HeavyRoom::open().unwrap();
    let threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
    // More than there are threads, all of which wait for the last.
    let waiting = (threads + 1).min(BEGUN - 1);
    let written = CancellationToken::new();
    let users: Vec<String> = (0..waiting).map(|i| format!("u{i}")).collect();
    let writes = users.iter().map(|user| {
        let written = written.clone();
        room.run(user, WITH_BODY, move |_| async move {
            written.cancelled().await;
            Ok(())
        })
    });
    let write = written.clone();
    let last = room.run("last", WITH_BODY, move |_| async move {
        write.cancel();
        Ok(())
    });
    let (all, last) = futures::join!(join_all(writes), last);
    assert!(last.is_ok() && all.iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_a_request_in_the_room_asks_of_it_is_part_of_the_request() {
    let room = Arc::new(HeavyRoom::open().unwrap());
    let nested = |depth: usize| {
        let room = Arc::clone(&room);
        move |_: Client| async move {
            for _ in 0..depth {
                room.run("a", WITH_BODY, |_| async { Ok(()) }).await?;
            }
            Ok(std::thread::current().name().map(str::to_owned))
        }
    };
    let all: Vec<_> = (0..WAITING_OF_ONE).map(|_| room.run("a", WITH_BODY, nested(2))).collect();
    for answer in join_all(all).await {
        assert_eq!(answer.unwrap().as_deref(), Some("heavy"));
    }
}

#[tokio::test]
async fn work_is_told_that_its_client_has_gone() {
    let room = HeavyRoom::open().unwrap();
    let (entered, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    {
        let (entered_by, tells) = (Arc::clone(&entered), Arc::clone(&told));
        let computes = room.run("a", WITH_BODY, move |client| async move {
            entered_by.notify_one();
            // Never waits, as a decoder does not.
            while !client.is_gone() {
                std::thread::yield_now();
            }
            tells.notify_one();
            Ok(())
        });
        tokio::select! { _ = computes => unreachable!(), () = entered.notified() => {} }
    }
    told.notified().await;
}
