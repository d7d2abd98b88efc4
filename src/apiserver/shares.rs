//! What all users have together, of which each gets a share: places, or memory.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::ApiError;

/// So many places, or so much memory.
#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    /// Of one user.
    share: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_turn: HashMap<String, usize>,
}

/// What somebody has of a pool, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    pool: Arc<Pool>,
    turn: String,
    amount: usize,
}

/// There is no room: the client is to come again in a second.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl From<Full> for ApiError {
    fn from(_: Full) -> Self {
        let message = "Too many requests, please try again later.".to_owned();
        Self::TooManyRequests { message, retry_after: 1, causes: Vec::new() }
    }
}

impl Pool {
    pub(crate) fn new(limit: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { limit, share, taken: Mutex::default() })
    }

    /// Gives whoever takes this turn so much of the pool; one who has nothing may have more than the share.
    ///
    /// # Errors
    /// When so much is not free.
    pub(crate) fn enter(self: &Arc<Self>, turn: &str, amount: usize) -> Result<Pass, Full> {
        let mut pass = Pass::none(self, turn);
        pass.grow(amount)?;
        Ok(pass)
    }

    /// How much is not free.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        let taken = self.taken.lock();
        assert_eq!(taken.all, taken.by_turn.values().sum::<usize>());
        taken.all
    }
}

impl Pass {
    /// Nothing yet.
    pub(crate) fn none(pool: &Arc<Pool>, turn: &str) -> Self {
        Self { pool: Arc::clone(pool), turn: turn.to_owned(), amount: 0 }
    }

    pub(crate) fn turn(&self) -> &str {
        &self.turn
    }

    pub(crate) fn is_of(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// Makes it so much, if it is less.
    ///
    /// # Errors
    /// When so much is not free; it stays as it is.
    pub(crate) fn grow(&mut self, amount: usize) -> Result<(), Full> {
        let more = amount.saturating_sub(self.amount);
        let mut taken = self.pool.taken.lock();
        let own = taken.by_turn.get(&self.turn).copied().unwrap_or(0);
        if taken.all + more > self.pool.limit || (own > 0 && own + more > self.pool.share) {
            return Err(Full);
        }
        taken.all += more;
        *taken.by_turn.entry(self.turn.clone()).or_default() += more;
        self.amount += more;
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut taken = self.pool.taken.lock();
        taken.all -= self.amount;
        if let Some(own) = taken.by_turn.get_mut(&self.turn) {
            *own -= self.amount;
            if *own == 0 {
                taken.by_turn.remove(&self.turn);
            }
        }
    }
}
