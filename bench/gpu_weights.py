"""Random weights in the architectures of Stable Diffusion 1.5, SDXL and Flux: full size, or thumbnails.

The full-size numbers are those of the published models' own configuration files; counted on torch's meta
device they give 859.5 M, 2,567 M and 11,891 M parameters (research: gpu.md 3.1 and 5.1).
"""

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from tests.engine import tiny

_NOISE: Final[dict[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def build(folder: Path, name: str, *, full_size: bool) -> None:
    """Write a model below `folder` in diffusers' layout, unless it is there.

    Args:
        name: sd15, sdxl or schnell.
        full_size: made on the GPU in bfloat16; else a thumbnail in float32.
    """
    if (folder / "model_index.json").exists():
        return
    if not full_size:
        tiny.build(folder.parent)
        return
    torch.manual_seed(7)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            made = {"sd15": _sd15, "sdxl": _sdxl, "schnell": _schnell}[name]()
    finally:
        torch.set_default_dtype(before)
    made.save_pretrained(folder, safe_serialization=True)
    del made
    torch.cuda.empty_cache()


def _sd15() -> Any:
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    return StableDiffusionPipeline(
        vae=_vae(latents=4, scaling_factor=0.18215),
        text_encoder=CLIPTextModel(_clip_l()),
        tokenizer=tiny.clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**_NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    big_g = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        hidden_act="gelu",
        projection_dim=1280,
        eos_token_id=2,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(latents=4, scaling_factor=0.13025, force_upcast=False),
        text_encoder=CLIPTextModel(_clip_l()),
        text_encoder_2=CLIPTextModelWithProjection(big_g),
        tokenizer=tiny.clip_tokenizer(),
        tokenizer_2=tiny.clip_tokenizer(pad_token="!"),  # noqa: S106 - the token that pads
        unet=unet,
        scheduler=EulerDiscreteScheduler(**_NOISE),
    )


def _schnell() -> Any:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=19,
        num_single_layers=38,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=4096,
        pooled_projection_dim=768,
        axes_dims_rope=(16, 56, 56),
        guidance_embeds=False,
    )
    t5 = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return FluxPipeline(
        vae=_vae(
            latents=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(_clip_l()),
        text_encoder_2=T5EncoderModel(t5),
        tokenizer=tiny.clip_tokenizer(),
        tokenizer_2=tiny.t5_tokenizer(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )


def _vae(*, latents: int, **changes: Any) -> Any:
    return AutoencoderKL(
        latent_channels=latents,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        **changes,
    )


def _clip_l() -> Any:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        hidden_act="quick_gelu",
        max_position_embeddings=77,
        eos_token_id=2,
    )
