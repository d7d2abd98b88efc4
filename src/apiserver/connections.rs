//! Places for connections: few for strangers, most for clients who have proved who they are.
//!
//! A connection is a stranger's until a request on it is authenticated. A stranger is never kept
//! waiting and never keeps anybody waiting: the newest takes the place of the oldest, of the same
//! source where that source has had its share. A client who is known keeps its place. What a
//! stranger sends is limited (`allowance`).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::allowance::Allowance;
use crate::streams;

/// How many connections there may be, and how long they may stand still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) strangers: usize,
    pub(crate) strangers_of_source: usize,
    pub(crate) members: usize,
    pub(crate) members_of_source: usize,
    /// Without a request under way.
    pub(crate) stranger_idle: Duration,
    pub(crate) member_idle: Duration,
    /// From the head of a request to the last byte of its answer; watches and the like excepted.
    pub(crate) answered_within: Duration,
}

impl Limits {
    /// An idle connection costs 24 KB: 2,000 of them 48 MB, which a board can bear and a cluster of a
    /// hundred nodes does not reach. A stranger needs a place for one handshake, an eighth will do.
    /// Upstream ends idle connections after 90 s and requests after 60 s; ten more deliver the refusal.
    pub(crate) const DEFAULT: Self = Self {
        strangers: 256,
        strangers_of_source: 64,
        members: 1_744,
        members_of_source: 872,
        stranger_idle: Duration::from_secs(30),
        member_idle: Duration::from_secs(90),
        answered_within: Duration::from_secs(70),
    };
}

/// How long the other end has to hang up when nothing is left to be answered, and to take the end of an
/// answer that is over.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);

/// The connections that there are.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    /// Cancelled when all of them are to finish.
    finish: CancellationToken,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// By age.
    strangers: BTreeMap<u64, Stranger>,
    members: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    /// Ended when another connection gets the place.
    task: Option<AbortHandle>,
}

/// One connection: its place and what goes on upon it. The place is free when this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    connections: Arc<Connections>,
    id: u64,
    source: IpAddr,
    is_member: AtomicBool,
    /// Cancelled when the connection is to end after the requests that are under way.
    pub(crate) finish: CancellationToken,
    pub(crate) allowance: Allowance,
    activity: Mutex<Activity>,
}

#[derive(Debug)]
struct Activity {
    next: u64,
    /// Requests whose heads were read, and which no task has taken up yet.
    arrived: usize,
    /// The requests under way, by age. Mostly there is one, and never more than a connection has streams.
    running: Vec<(u64, UnderWay)>,
    idle_since: Instant,
}

#[derive(Debug)]
struct UnderWay {
    /// When the answer has to be out, if it has to.
    deadline: Option<Instant>,
    /// Ends the stream of the answer, once.
    stream: Option<CancellationToken>,
}

impl UnderWay {
    fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

impl Activity {
    fn is_idle(&self) -> bool {
        self.arrived == 0 && self.running.is_empty()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.running.iter().filter_map(|(_, request)| request.deadline).min()
    }

    /// Ends the answers whose time is over, if the connection has others.
    ///
    /// Says whether the connection itself has to end: nothing else goes on, there is no stream to end, or not
    /// even the end of one was taken.
    fn end_stalled(&mut self, now: Instant) -> bool {
        let over = self.running.iter().filter(|(_, request)| request.is_over(now)).count();
        if over == 0 || over == self.running.len() {
            return over > 0;
        }
        for (_, request) in self.running.iter_mut().filter(|(_, request)| request.is_over(now)) {
            let Some(stream) = request.stream.take() else { return true };
            stream.cancel();
            request.deadline = Some(now + GOODBYE_WITHIN);
        }
        false
    }
}

/// A request whose head was read. Its body may follow at once, whenever a thread has time for its task.
#[derive(Debug)]
pub(crate) struct Arrival(Arc<Connection>);

/// A request under way: until this is dropped, which is after the last byte of its answer.
#[derive(Debug)]
pub(crate) struct Running {
    connection: Arc<Connection>,
    id: u64,
    stream: Option<CancellationToken>,
}

impl Running {
    /// The answer is to end where it is.
    pub(crate) fn is_over(&self) -> bool {
        self.stream.as_ref().is_some_and(CancellationToken::is_cancelled)
    }
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// Nothing has been asked for too long.
    Idle,
    /// The client does not take an answer.
    Stalled,
}

impl Connections {
    /// None yet; all that will be finish when `finish` is cancelled.
    pub(crate) fn new(limits: Limits, finish: CancellationToken) -> Arc<Self> {
        Arc::new(Self { limits, finish, places: Mutex::default() })
    }

    /// A stranger's place for a connection from `peer`; whoever held it is cut off.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Arc<Connection> {
        let source = source_of(peer);
        let mut places = self.places.lock();
        if let Some(oldest) = places.to_displace(source, &self.limits)
            && let Some(Stranger { source, task: Some(task) }) = places.strangers.remove(&oldest)
        {
            tracing::debug!(%source, "a stranger's connection made room for another");
            task.abort();
        }
        let id = places.next;
        places.next += 1;
        places.strangers.insert(id, Stranger { source, task: None });
        Arc::new(Connection {
            connections: Arc::clone(self),
            id,
            source,
            is_member: AtomicBool::new(false),
            finish: self.finish.child_token(),
            allowance: Allowance::default(),
            activity: Mutex::new(Activity { next: 0, arrived: 0, running: Vec::new(), idle_since: now }),
        })
    }
}

impl Places {
    /// The stranger who has to make room for one from `source`, if somebody has to.
    fn to_displace(&self, source: IpAddr, limits: &Limits) -> Option<u64> {
        let mut of: HashMap<IpAddr, usize> = HashMap::new();
        for stranger in self.strangers.values() {
            *of.entry(stranger.source).or_default() += 1;
        }
        let oldest_of = |source| self.strangers.iter().find(|(_, s)| s.source == source).map(|(id, _)| *id);
        if of.get(&source).is_some_and(|n| *n >= limits.strangers_of_source) {
            return oldest_of(source);
        }
        if self.strangers.len() < limits.strangers {
            return None;
        }
        let (greediest, _) = of.into_iter().max_by_key(|(source, n)| (*n, *source))?;
        oldest_of(greediest)
    }
}

impl Connection {
    /// Which task serves the connection, to be told before the next one enters.
    pub(crate) fn is_served_by(&self, task: AbortHandle) {
        if let Some(stranger) = self.connections.places.lock().strangers.get_mut(&self.id) {
            stranger.task = Some(task);
        }
    }

    /// A request on this connection proved who the client is. Where the places for such are taken, the
    /// connection goes on as a stranger's.
    pub(crate) fn prove(&self) {
        if self.is_member.load(Ordering::Relaxed) {
            return;
        }
        self.allowance.lift();
        let limits = &self.connections.limits;
        let mut places = self.connections.places.lock();
        let all: usize = places.members.values().sum();
        let of_source = places.members.get(&self.source).copied().unwrap_or(0);
        if all >= limits.members || of_source >= limits.members_of_source {
            return;
        }
        // Two requests may prove it at once; who was displaced meanwhile has no place to give up.
        if places.strangers.remove(&self.id).is_some() {
            *places.members.entry(self.source).or_default() += 1;
            self.is_member.store(true, Ordering::Relaxed);
        }
    }

    /// Lets the body of a request pass, from the moment that its head was read.
    pub(crate) fn arrive(self: &Arc<Self>) -> Arrival {
        self.allowance.renew();
        self.activity.lock().arrived += 1;
        Arrival(Arc::clone(self))
    }

    /// Nothing goes on any more, if so.
    fn rest(&self, activity: &mut Activity) {
        if activity.is_idle() {
            activity.idle_since = Instant::now();
            self.allowance.reduce();
        }
    }

    /// Counts a request; `has_deadline` unless its answer takes as long as the client likes.
    pub(crate) fn begin(self: &Arc<Self>, has_deadline: bool, now: Instant) -> Running {
        let deadline = has_deadline.then(|| now + self.connections.limits.answered_within);
        let mut activity = self.activity.lock();
        let id = activity.next;
        activity.next += 1;
        let stream = streams::current();
        activity.running.push((id, UnderWay { deadline, stream: stream.clone() }));
        Running { connection: Arc::clone(self), id, stream }
    }

    /// Whether the connection has to end now, and when to ask again if not. Single answers that nobody takes
    /// are ended.
    fn judge(&self, now: Instant) -> Result<Stale, Instant> {
        let limits = &self.connections.limits;
        let idle = if self.is_member.load(Ordering::Relaxed) { limits.member_idle } else { limits.stranger_idle };
        let mut activity = self.activity.lock();
        if activity.is_idle() {
            let until = activity.idle_since + idle;
            return if now >= until { Ok(Stale::Idle) } else { Err(until) };
        }
        if activity.end_stalled(now) {
            return Ok(Stale::Stalled);
        }
        // Nobody wakes this up when a request begins or ends: it looks again after a while.
        Err(activity.next_deadline().map_or(now + idle, |deadline| deadline.min(now + idle)))
    }

    /// Waits until a connection that was told to finish has had its time: until an answer stalls, or for a
    /// moment after the last one.
    pub(crate) async fn drained(&self) {
        loop {
            let now = Instant::now();
            let until = {
                let activity = self.activity.lock();
                match activity.next_deadline() {
                    Some(deadline) => deadline,
                    None if activity.running.is_empty() => activity.idle_since.max(now) + GOODBYE_WITHIN,
                    None => now + self.connections.limits.answered_within,
                }
            };
            tokio::time::sleep_until(until).await;
            let activity = self.activity.lock();
            let stalled = activity.running.iter().any(|(_, request)| request.is_over(until));
            if stalled || activity.running.is_empty() {
                return;
            }
        }
    }

    /// Waits until the connection has to end.
    pub(crate) async fn stale(&self) -> Stale {
        loop {
            match self.judge(Instant::now()) {
                Ok(why) => return why,
                Err(again) => tokio::time::sleep_until(again).await,
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut places = self.connections.places.lock();
        places.strangers.remove(&self.id);
        if *self.is_member.get_mut()
            && let Some(count) = places.members.get_mut(&self.source)
        {
            *count -= 1;
            if *count == 0 {
                places.members.remove(&self.source);
            }
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut activity = self.0.activity.lock();
        activity.arrived -= 1;
        self.0.rest(&mut activity);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut activity = self.connection.activity.lock();
        activity.running.retain(|(id, _)| *id != self.id);
        self.connection.rest(&mut activity);
    }
}

/// Who is counted together: one IPv4 address, or one IPv6 network, in which a host has as many
/// addresses as it likes.
fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Limits =
        Limits { strangers: 4, strangers_of_source: 2, members: 3, members_of_source: 2, ..Limits::DEFAULT };

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn none(limits: Limits) -> Arc<Connections> {
        Connections::new(limits, CancellationToken::new())
    }

    /// Who has no place any more.
    fn left(connections: &[Arc<Connection>]) -> Vec<bool> {
        let has_place = |c: &Connection| {
            c.is_member.load(Ordering::Relaxed) || c.connections.places.lock().strangers.contains_key(&c.id)
        };
        connections.iter().map(|c| !has_place(c)).collect()
    }

    #[tokio::test]
    async fn who_is_displaced_is_cut_off_and_the_others_finish_together() {
        let finish = CancellationToken::new();
        let all = Connections::new(FEW, finish.clone());
        let mut tasks = tokio::task::JoinSet::new();
        let held: Vec<_> = (0..3)
            .map(|n| {
                let connection = all.enter(ip(1), Instant::now());
                let finish = connection.finish.clone();
                connection.is_served_by(tasks.spawn(async move {
                    finish.cancelled().await;
                    n
                }));
                connection
            })
            .collect();
        assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
        assert_eq!(left(&held), [true, false, false]);
        finish.cancel();
        let mut ended = [tasks.join_next().await.unwrap().unwrap(), tasks.join_next().await.unwrap().unwrap()];
        ended.sort_unstable();
        assert_eq!(ended, [1, 2]);
    }

    #[tokio::test]
    async fn a_source_displaces_itself_first() {
        let all = none(FEW);
        let now = Instant::now();
        let held: Vec<_> = [1, 2, 1, 1].iter().map(|n| all.enter(ip(*n), now)).collect();
        assert_eq!(left(&held), [true, false, false, false]);
    }

    #[tokio::test]
    async fn a_full_house_costs_the_source_with_most_its_oldest() {
        let all = none(FEW);
        let now = Instant::now();
        let held: Vec<_> = [1, 2, 2, 3, 4].iter().map(|n| all.enter(ip(*n), now)).collect();
        assert_eq!(left(&held), [false, true, false, false, false]);
    }

    #[tokio::test]
    async fn who_is_known_stays_and_leaves_room_for_strangers() {
        let all = none(FEW);
        let now = Instant::now();
        let held: Vec<_> = (0..3).map(|_| all.enter(ip(1), now)).collect();
        assert_eq!(left(&held), [true, false, false]);
        held.iter().for_each(|c| c.prove());
        let more: Vec<_> = (0..3).map(|_| all.enter(ip(1), now)).collect();
        assert_eq!((left(&held), left(&more)), (vec![true, false, false], vec![true, false, false]));
        // The source has as many places as it gets; these two stay strangers.
        more.iter().for_each(|c| c.prove());
        assert_eq!(all.places.lock().strangers.len(), 2);
        drop((held, more));
        let places = all.places.lock();
        assert!(places.strangers.is_empty() && places.members.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_nothing_moves() {
        let all = none(Limits::DEFAULT);
        let connection = all.enter(ip(1), Instant::now());
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(connection.judge(after(29)), Err(after(30)));
        assert_eq!(connection.judge(after(30)), Ok(Stale::Idle));
        connection.prove();
        assert_eq!(connection.judge(after(30)), Err(after(90)));
        assert_eq!(connection.judge(after(90)), Ok(Stale::Idle));
        let watch = connection.begin(false, Instant::now());
        assert_eq!(connection.judge(after(900)), Err(after(990)));
        let list = connection.begin(true, Instant::now());
        assert_eq!(connection.judge(after(69)), Err(after(70)));
        assert_eq!(connection.judge(after(70)), Ok(Stale::Stalled));
        drop((watch, list));
        tokio::time::advance(Duration::from_secs(91)).await;
        assert_eq!(connection.stale().await, Stale::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends_alone() {
        let all = none(Limits::DEFAULT);
        let connection = all.enter(ip(1), Instant::now());
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        let watch = connection.begin(false, Instant::now());
        let begin = || streams::scope(CancellationToken::new(), || connection.begin(true, Instant::now()));
        let (list, other) = (begin(), begin());
        drop(other);
        assert_eq!(connection.judge(after(69)), Err(after(70)));
        assert!(!list.is_over());
        // Its end has a moment to be taken; then it is the connection that takes nothing.
        assert_eq!(connection.judge(after(70)), Err(after(75)));
        assert!(list.is_over() && !watch.is_over());
        assert_eq!(connection.judge(after(75)), Ok(Stale::Stalled));
        drop(list);
        assert_eq!(connection.judge(after(75)), Err(after(105)));
        // Where nothing else goes on the connection ends.
        drop(watch);
        let list = begin();
        assert_eq!(connection.judge(after(70)), Ok(Stale::Stalled));
        assert!(!list.is_over());
    }

    #[test]
    fn sources_are_hosts() {
        assert_eq!(source_of("::ffff:10.0.0.1".parse().unwrap()), ip(1));
        assert_eq!(source_of("2001:db8:1:2:3::4".parse().unwrap()), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
    }
}
