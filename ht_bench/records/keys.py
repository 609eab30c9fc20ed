"""Diagnostics by metric key, each in one line: what records, callbacks and `explain` call them."""

from __future__ import annotations

BASIC = {
    "plasticity/dormant_fraction": "share of hidden units that are zero on all inputs",
    "plasticity/saturated_fraction": (
        "share of hidden units whose activation is linear, or at its bounds, on all inputs"
    ),
    "plasticity/duplicate_fraction": (
        "share of hidden units whose outputs are parallel to those of one before it in its layer"
    ),
    "plasticity/effective_rank": "exp(entropy of the last hidden features' singular values)",
    "plasticity/stable_rank": "‖A‖²_F / ‖A‖²₂ of the last hidden features",
    "plasticity/srank": "singular values that hold 99 % of the sum, of the last hidden features",
    "plasticity/centred_effective_rank": "effective rank of mean-removed features",
    "plasticity/centred_stable_rank": "stable rank of mean-removed features",
    "plasticity/centred_srank": "srank of mean-removed features",
    "plasticity/feature_churn": "‖F' − F‖ / ‖F‖: features on the same inputs since the phase began",
    "plasticity/output_churn": "share of inputs whose answer has changed since the phase began",
    "weights/norm": "norm of all parameters",
    "weights/distance_from_init": "distance of all parameters from their initial values",
    "weights/effective_learning_rate": "‖Δθ‖ / ‖θ‖ of the optimizer's last gradient step",
    "gradients/norm": "norm of the loss's gradient, all parameters together",
}
COSTLY = {
    "curvature/top_eigenvalue": "largest eigenvalue of the loss's Hessian",
    "curvature/lowest_eigenvalue": "smallest eigenvalue of the loss's Hessian",
    "curvature/negative_share": "share of the Hessian's eigenvalues that are clearly negative",
    "curvature/trace": "estimate of the Hessian's trace",
    "curvature/effective_rank": "estimate of exp(entropy of the Hessian's |eigenvalues|)",
    "plasticity/probe_steps": "steps in which a copy fits fresh random labels, 200 at the most",
    "plasticity/probe_accuracy": "mean share of those labels that the copy gets right meanwhile",
}
DIAGNOSTICS = BASIC | COSTLY
