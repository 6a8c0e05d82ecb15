"""Features, and the table of all that is above the core of graphc.

The core asks for a part by its name, through `graphc.base.door`, and imports none.
"""

from __future__ import annotations

FEATURES = {
    # loops and lengths of rows
    "lower loops": "graphc.features.loops.lowering.LoopLowering",
    "bind loop": "graphc.features.loops.bind.bind_loop",
    "bind compiled loop": "graphc.features.loops.bind.bind_compiled_loop",
    "sequences": "graphc.features.loops.sequences.Sequences.of",
    # shards and ranks
    "lower transfers": "graphc.compiler.transfer_lowering.TransferLowering",
    "sharded step": "graphc.runtime.distributed.step.sharded_step",
    # precision, random numbers, functions that NumPy lacks
    "narrow": "graphc.features.precision.bfloat16",
    "philox": "graphc.kernels.philox",
    "numpy erf": "graphc.backends.numpy.erf.rule",
    # kernels that run together
    "chain kernels": "graphc.compiler.chaining.chain_kernels",
    "plan chain": "graphc.backends.numpy.chains.PlannedChain.of",
    "plan updates": "graphc.backends.numpy.horizontal.horizontal",
    # the list of all passes, memory, what inference prepares
    "passes": "passes.DEFAULT",
    "memory report": "graphc.compiler.memory_report.MemoryReport",
    "most bytes": "graphc.base.memory.most_bytes",
    "moved": "graphc.compiler.prepare.moved",
    # calls of executors besides steps and inference
    "parameters": "graphc.runtime.parameters.Parameters",
    "Executor.hyper": "graphc.runtime.parameters.Hyper",
    "Executor.averaged": "graphc.runtime.parameters.averaged",
    "Executor.predict": "graphc.runtime.rows.predict",
    "Executor.rows": "graphc.runtime.rows.by_position",
    "Executor.score": "graphc.runtime.rows.evaluate",
    "Executor.refresh": "graphc.compiler.freeze.refreshed",
    "cotangent runs": "graphc.runtime.cotangents.CotangentRuns",
    # words for mistakes, and texts
    "option hint": "graphc.base.other_names.option_hint",
    "missing attribute": "graphc.base.other_names.no_member",
    "program text": "graphc.kernels.text.program_text",
}
"""The parts that the core offers a place."""
SATELLITES = {
    "names": "graphc.__all__",
    "Net.render": "graphc.view.render.render_net",
    "Net.summary": "graphc.view.reports.summary",
    "Plan.render": "graphc.view.render.render_plan",
    "Plan.report": "graphc.view.reports.plan_report",
    "certificate_text": "graphc.check.certificate.text.certificate_text",
    "certify_model": "graphc.check.certificate.export.certify_model",
    "certify_program": "graphc.check.certificate.export.certify_program",
    "verify_plan": "graphc.check.plan_proof.verify_plan",
    "verify_program": "graphc.check.verify.verify_program",
    "Curve.plot": "graphc.view.plots.memory_curve",
    "MemoryReport.pictures": "graphc.view.render.memory_view.arena_steps",
    "MemoryReport.render": "graphc.view.render.memory_view.render_arena",
    "Executor.profile": "graphc.view.profile.profile",
    "Executor.evaluate": "graphc.train.user_data.part_file_batches",
    "History.plot": "graphc.view.plots.learning_curve",
    "compile.validate": "graphc.check.validation.validate.Watch",
    "compile.run": "graphc.check.validation.plans.validate_plan",
    "compile.limit": "graphc.check.validation.bisect.from_environment",
    "notebook": "graphc.view.render.notebook_bundle",
    "pickled": "graphc.files.serialize.pickled",
}
"""The functions that implement methods of the core."""
PARTS = {**FEATURES, **SATELLITES}
"""The path of the object behind each name."""
