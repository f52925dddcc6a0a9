"""Parts of the checklist that go through every method, and through every family of models."""

from session import ALL_WEIGHTS, FP32, SMALL, alike, of, random_model

# Larger weights make the soft draw of a latent so sharp that it multiplies roundings.
FLATTER = "model.config.initializer_range=0.05"
METHODS = {
    "otoft": (),
    "otmft": (),
    "poexft": (),
    "gem": (),
    "distribution_matching": (),
    "cvf": ("cvf.latents=4", FLATTER),
    "cvf, exact": ("cvf.latents=4", "cvf.estimator=exact", FLATTER),
    "pretrain": (),
}
OPTIONS = {"distribution_matching": {"corpus": "targets"}, "pretrain": {"adapter": ALL_WEIGHTS}}

GEMMA = {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 16,
}
# Windows are shorter than the prompts and caps small enough to bend.
FAMILIES = {
    "llama": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 8.0,
            "original_max_position_embeddings": 200,
        },
        "architectures": ["LlamaForCausalLM"],
    },
    "mistral": {"architectures": ["MistralForCausalLM"], "sliding_window": 16},
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "use_sliding_window": True,
        "sliding_window": 16,
        "max_window_layers": 1,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "head_dim": 32},
    "gemma": {"architectures": ["GemmaForCausalLM"], **GEMMA},
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        "query_pre_attn_scalar": 9,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 5.0,
        **GEMMA,
    },
    "gemma3_text": {
        "architectures": ["Gemma3ForCausalLM"],
        "num_hidden_layers": 7,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
        **GEMMA,
    },
    "phi3": {"architectures": ["Phi3ForCausalLM"], "sliding_window": 16, "pad_token_id": 0},
}
JOINED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
SEPARATE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def methods(session):
    for name, overrides in METHODS.items():
        options = {"method": name.split(",")[0], **OPTIONS.get(name, {})}
        session.compare(
            f"{name}: tree = plain",
            FP32,
            of(*overrides, **options),
            of(*overrides, "train.layout=plain", **options),
        )
        session.compare(
            f"{name}: this device against the CPU",
            session.rounding,
            of(*overrides, **options),
            of(*overrides, **options, device="cpu"),
        )


def families(session):
    """All weights of a random model, and adapters on what that training on the CPU made, whose biases and
    norms are then no longer those that all models begin with."""
    for name, keys in FAMILIES.items():
        whole = {
            "model": random_model({**SMALL, "model_type": name, **keys}),
            "adapter": ALL_WEIGHTS,
            "steps": 2,
        }
        rate = "optimizer.lr=0.03"
        session.compare(
            f"{name}: all weights, this device against the CPU",
            session.rounding,
            of(rate, **whole),
            of(rate, **whole, device="cpu"),
        )
        targets = ", ".join(JOINED if name == "phi3" else SEPARATE)
        session.results.attempt(
            f"{name}: adapters, this device against the CPU",
            lambda: adapters(session, session.trained(rate, **whole, device="cpu")["folder"], targets),
        )


def adapters(session, folder, targets):
    options = {"model": f"path: {folder}/model", "adapter": f"rank: 8, alpha: 16, targets: [{targets}]"}
    return alike(*(session.trained(**options, device=d) for d in (session.device, "cpu")), session.rounding)
