use anyhow::{Context, Result, ensure};

/// One side of a comparison: runs its trace once and says what an operation cost, or how many it did.
pub type Contender<'a> = Box<dyn FnMut() -> Result<f64> + 'a>;

/// The medians of the contenders' figures over `rounds` rounds, in their order. A round that is not
/// counted goes first and warms caches up.
///
/// # Errors
/// The first one of a contender; a figure that is not above zero; no round at all.
pub fn medians(rounds: usize, contenders: &mut [Contender<'_>]) -> Result<Vec<f64>> {
    let mut figures = vec![Vec::with_capacity(rounds); contenders.len()];
    for contender in &mut *contenders {
        contender()?;
    }
    for round in 0..rounds {
        for position in 0..contenders.len() {
            let turn = (position + round) % contenders.len();
            let figure = contenders[turn]()?;
            ensure!(
                figure.is_finite() && figure > 0.0,
                "contender {turn} measured {figure}: its trace is too short for the clock"
            );
            figures[turn].push(figure);
        }
    }
    figures
        .into_iter()
        .map(|of_one| median(of_one).context("a median needs a round"))
        .collect()
}

/// The middle figure, or the mean of the two in the middle.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_unstable_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = *figures.get((figures.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![4.0, 1.0, 1000.0, 2.0]), Some(3.0));
        assert_eq!(median(vec![7.0]), Some(7.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn contenders_alternate_and_neither_is_always_first() {
        let order = RefCell::new(String::new());
        let contender = |name: char| -> Contender<'_> {
            let order = &order;
            Box::new(move || {
                order.borrow_mut().push(name);
                Ok(1.0)
            })
        };
        medians(4, &mut [contender('o'), contender('p')]).unwrap();
        assert_eq!(order.into_inner(), "op op po op po".replace(' ', ""));
    }

    #[test]
    fn the_warm_up_and_one_slow_round_do_not_move_the_median() {
        let mut figures = [500.0, 3.0, 3.0, 900.0].into_iter();
        let ours: Contender<'_> = Box::new(|| Ok(figures.next().unwrap()));
        assert_eq!(medians(3, &mut [ours]).unwrap(), [3.0]);
    }

    #[test]
    fn an_error_or_a_figure_of_nothing_ends_the_run() {
        let fails: Contender<'_> = Box::new(|| anyhow::bail!("no ids"));
        assert!(medians(7, &mut [fails]).is_err());
        let zero: Contender<'_> = Box::new(|| Ok(0.0));
        assert!(medians(7, &mut [zero]).is_err());
        let unused: Contender<'_> = Box::new(|| Ok(1.0));
        assert!(medians(0, &mut [unused]).is_err());
    }
}
