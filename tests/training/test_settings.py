"""The settings of a run as data."""

from __future__ import annotations

import json

from foleypref.train import TrainSettings


def test_keys_of_settings_keep_their_order() -> None:
    """Recipes and settings.json are compared byte by byte, and the order of bases shapes them."""
    text = (
        "model objective curriculum run_name pair_sources split audioscore watch labels negatives seed "
        "max_steps per_device_train_batch_size gradient_accumulation_steps learning_rate warmup_steps "
        "weight_decay adam_beta1 adam_beta2 max_grad_norm bf16 gradient_checkpointing use_peft lora "
        "merge_adapters shard_weights precompute_reference_errors ema_decay logging_steps save_steps "
        "save_total_limit eval_steps num_eval_pairs stop tensorboard"
    )
    assert " ".join(json.loads(TrainSettings().model_dump_json())) == text
