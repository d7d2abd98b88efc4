//! The life of a pod on this node.
//!
//! ```text
//! Running ──deleted, evicted, past its deadline, finished, gone from the API──▶ Stopping
//! Stopping ──no container runs──▶ TearingDown
//! TearingDown ──volumes, network and sandbox are away──▶ Stopped
//! Stopped ──gone from the API──▶ Gone   (a deleted pod's object is removed in Stopped)
//! Rejected ──deleted, gone──▶ Stopped
//! ```

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its containers are started and kept.
    Running,
    /// Admission refused it; nothing was ever made for it.
    Rejected,
    Stopping,
    TearingDown,
    /// Nothing runs and nothing is held but logs and dead containers.
    Stopped,
    Gone,
}

/// What moves a pod on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations, not modes")]
pub(crate) struct Facts {
    /// `deletionTimestamp` is set.
    pub(crate) deleting: bool,
    /// There is no such object any more.
    pub(crate) removed: bool,
    /// The kubelet decided to end it.
    pub(crate) condemned: bool,
    /// Its phase is final.
    pub(crate) finished: bool,
    pub(crate) anything_runs: bool,
    pub(crate) torn_down: bool,
}

impl State {
    pub(crate) fn next(self, facts: Facts) -> Self {
        match self {
            Self::Running if facts.deleting || facts.removed || facts.condemned || facts.finished => Self::Stopping,
            Self::Rejected if facts.deleting || facts.removed => Self::Stopped,
            Self::Stopping if !facts.anything_runs => Self::TearingDown,
            Self::TearingDown if facts.torn_down => Self::Stopped,
            Self::Stopped if facts.removed => Self::Gone,
            Self::Running | Self::Rejected | Self::Stopping | Self::TearingDown | Self::Stopped | Self::Gone => self,
        }
    }

    /// As far as these facts go.
    pub(crate) fn settled(self, facts: Facts) -> Self {
        let mut state = self;
        loop {
            let next = state.next(facts);
            if next == state {
                return state;
            }
            state = next;
        }
    }

    /// Nothing of it runs and nothing can start any more: only now may its phase be final. Of a sandbox that
    /// nobody can look into that is known once it is torn down.
    pub(crate) fn has_ended(self, sandbox_unknown: bool) -> bool {
        match self {
            Self::Running | Self::Rejected | Self::Stopping => false,
            Self::TearingDown => !sandbox_unknown,
            Self::Stopped | Self::Gone => true,
        }
    }

    /// No container is started any more.
    pub(crate) fn is_ending(self) -> bool {
        match self {
            Self::Running => false,
            Self::Rejected | Self::Stopping | Self::TearingDown | Self::Stopped | Self::Gone => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Facts = Facts {
        deleting: false,
        removed: false,
        condemned: false,
        finished: false,
        anything_runs: false,
        torn_down: false,
    };

    #[track_caller]
    fn check(from: State, facts: Facts, to: State) {
        assert_eq!(from.next(facts), to, "{from:?} {facts:?}");
    }

    #[test]
    fn a_pod_runs_until_something_ends_it() {
        check(State::Running, Facts { anything_runs: true, ..NONE }, State::Running);
        check(State::Running, NONE, State::Running);
        for facts in [
            Facts { deleting: true, ..NONE },
            Facts { removed: true, ..NONE },
            Facts { condemned: true, ..NONE },
            Facts { finished: true, ..NONE },
        ] {
            check(State::Running, Facts { anything_runs: true, ..facts }, State::Stopping);
        }
    }

    #[test]
    fn nothing_is_torn_down_under_a_running_container() {
        check(State::Stopping, Facts { removed: true, anything_runs: true, ..NONE }, State::Stopping);
        check(State::Stopping, Facts { removed: true, ..NONE }, State::TearingDown);
        check(State::TearingDown, Facts { removed: true, ..NONE }, State::TearingDown);
        check(State::TearingDown, Facts { torn_down: true, ..NONE }, State::Stopped);
    }

    #[test]
    fn a_stopped_pod_stays_until_its_object_has_gone() {
        check(State::Stopped, Facts { deleting: true, ..NONE }, State::Stopped);
        check(State::Stopped, Facts { removed: true, ..NONE }, State::Gone);
        check(State::Rejected, NONE, State::Rejected);
        check(State::Rejected, Facts { deleting: true, ..NONE }, State::Stopped);
    }
}
