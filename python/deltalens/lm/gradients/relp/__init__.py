"""RelP: gradients of a model whose non-linear parts are held as the linear maps they are there.

Relevance patching (Jafari, Eberle, Khakzar & Nanda 2025) takes the propagation rules of LRP
(Bach et al. 2015; for transformers Ali et al. 2022 and Achtibat et al. 2024) for the slopes of a
first-order estimate. Values of the forward pass stay what they are, to the bit; only what comes
back through a part is another:

* norms are divided by a fixed scale;
* an activation function φ(z) is z times the fixed ratio φ(z)/z;
* of a gated product each factor gets half of the gradient;
* attention patterns are, where asked for, fixed numbers.

A model of these parts alone, without biases, is then linear in the residual stream, so that
Σ gradient · activation over a layer's tokens equals the logit. Whatever else a model has keeps its
own slope: free patterns, routers' weights, caps of logits.
"""
