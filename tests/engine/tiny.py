"""Stable Diffusion 1.5, SDXL and Flux as thumbnails: real architectures, random weights, built offline.

Four models take less than a second to build and 9 MB to keep. What they draw is noise; that they are drawn by
the very code that draws the large ones is the point.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

FAMILIES = ("sd15", "sdxl", "schnell", "dev")
_WIDE = 32
_NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(folder: Path) -> Path:
    """Write the four models below a folder, each in diffusers' layout; gives the folder."""
    torch.manual_seed(7)
    for name, made in (
        ("sd15", _sd15()),
        ("sdxl", _sdxl()),
        ("schnell", _flux()),
        ("dev", _flux(embeds=True)),
    ):
        made.save_pretrained(folder / name, safe_serialization=True)
    return folder


def inpainting(folder: Path) -> Path:
    """Write an SD 1.5 that only inpaints: its UNet takes a mask and what it hides beside the latents."""
    torch.manual_seed(8)
    made = _sd15()
    parts = {**made.components, "unet": _unet(cross_attention_dim=_WIDE, in_channels=9)}
    del parts["image_encoder"]
    StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


def lora(path: Path, *, seed: int) -> Path:
    """Write an adapter for the attention of a tiny UNet, in the form that diffusers' own training writes."""
    unet = _unet(cross_attention_dim=_WIDE)
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            wide, deep = module.weight.shape
            weights[f"unet.{name}.lora_A.weight"] = torch.randn(4, deep, generator=random) / 4
            weights[f"unet.{name}.lora_B.weight"] = torch.randn(wide, 4, generator=random) / 4
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return path


def _sd15() -> Any:
    text = CLIPTextModel(_clip_config())
    return StableDiffusionPipeline(
        vae=_vae(latents=4, scaling_factor=0.18215),
        text_encoder=text,
        tokenizer=clip_tokenizer(),
        unet=_unet(cross_attention_dim=_WIDE),
        scheduler=PNDMScheduler(**_NOISE, steps_offset=1, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    return StableDiffusionXLPipeline(
        vae=_vae(latents=4, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(projection_dim=_WIDE)),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(pad_token="!"),
        unet=_unet(
            cross_attention_dim=2 * _WIDE,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + _WIDE,
        ),
        scheduler=EulerDiscreteScheduler(**_NOISE, steps_offset=1, timestep_spacing="leading"),
    )


def _flux(*, embeds: bool = False) -> Any:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=_WIDE,
        pooled_projection_dim=_WIDE,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=embeds,
    )
    return FluxPipeline(
        vae=_vae(
            latents=4,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(_clip_config()),
        text_encoder_2=T5EncoderModel(_t5_config()),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if embeds else 1.0, use_dynamic_shifting=embeds),
    )


def _unet(**changes: Any) -> Any:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        **changes,
    )


def _vae(*, latents: int, **changes: Any) -> Any:
    """Four levels, so that a latent is a real 8 × 8 pixels."""
    return AutoencoderKL(
        latent_channels=latents,
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        sample_size=128,
        force_upcast=False,
        **changes,
    )


def _clip_config(**changes: Any) -> Any:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=_WIDE,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
        **changes,
    )


def clip_tokenizer(**changes: Any) -> Any:
    """A tokenizer of bytes: each byte a token, and each once more for the end of a word."""
    symbols = _byte_symbols()
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77, **changes
    )


def _byte_symbols() -> list[str]:
    """The printable stand-ins of the 256 bytes that GPT-2's tokenizer made customary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(others))]


def _t5_config() -> Any:
    return T5Config(
        vocab_size=110,
        d_model=_WIDE,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )


def t5_tokenizer() -> Any:
    """A tokenizer of printable ASCII letters."""
    letters = [("\u2581", -2.0), *((chr(code), -3.0) for code in range(33, 127))]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=512)
