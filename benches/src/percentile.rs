use anyhow::{Context, Result};

/// The figure below which so many of a hundred are. Leaves the figures in their order.
///
/// # Errors
/// Where there are none.
pub fn percentile(figures: &mut [f64], hundredths: usize) -> Result<f64> {
    figures.sort_unstable_by(f64::total_cmp);
    let at = figures.len() * hundredths / 100;
    let last = figures.len().saturating_sub(1);
    figures
        .get(at.min(last))
        .copied()
        .context("nothing was timed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let mut figures: Vec<f64> = (0..200_u8).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut figures, 50).unwrap(), 100.0);
        assert_eq!(percentile(&mut figures, 99).unwrap(), 198.0);
        assert_eq!(percentile(&mut figures, 100).unwrap(), 199.0);
        assert!(percentile(&mut [], 50).is_err());
    }
}
