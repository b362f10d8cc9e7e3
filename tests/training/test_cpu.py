"""What makes training on a CPU faster: the same gradients up to rounding, and nothing left behind."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from hashret.models.backbones import get_backbone
from hashret.training import cpu


def small():
    torch.manual_seed(0)
    layers = get_backbone("efficientnet_lite0").build()
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 4)).eval()


def gradients(module, x):
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x)
    output.float().square().mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


def test_depthwise_convolutions_are_trained_in_float32_and_used_in_bfloat16():
    module, x = small(), torch.rand(4, 3, 64, 64)
    depthwise = [part for part in module.modules() if isinstance(part, nn.Conv2d) and part.groups > 1]
    others = [part for part in module.modules() if isinstance(part, nn.Conv2d) and part.groups == 1]
    seen = {}
    for part in depthwise + others:
        part.register_forward_hook(lambda part, inputs, output: seen.__setitem__(part, output.dtype))

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            return module(x)

    plain, of_plain = gradients(module, x), run()
    assert len(depthwise) == 16
    with cpu.depthwise_in_float32(module):
        run()
        assert {seen[part] for part in depthwise} == {torch.float32}
        assert {seen[part] for part in others} == {torch.bfloat16}
        assert torch.cosine_similarity(gradients(module, x), plain, dim=0) > 0.99
        with torch.no_grad():
            assert torch.equal(run(), of_plain)
        assert {seen[part] for part in depthwise} == {torch.bfloat16}
    run()
    assert {seen[part] for part in depthwise} == {torch.bfloat16}
    assert all("forward" not in vars(part) for part in depthwise)


def test_the_convolutions_are_themselves_again_after_an_error():
    module = small()
    with pytest.raises(RuntimeError, match="broken"), cpu.fast_training(module):
        raise RuntimeError("broken")
    assert all("forward" not in vars(part) for part in module.modules())


@pytest.mark.skipif(cpu._glibc() is None, reason="memory is kept under glibc alone")
def test_freed_memory_is_kept_and_then_given_back():
    code = """
        import resource, torch
        from hashret.training import cpu

        layers = torch.nn.Sequential(*(torch.nn.Conv2d(32, 32, 3, padding=1) for _ in range(4)))

        def steps(count):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(count):
                layers(torch.ones(8, 32, 128, 128)).mean().backward()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

        steps(3)
        before, plain = resident(), steps(5)
        with cpu.freed_memory_kept():
            steps(5)
            kept, grown = steps(5), resident() - before
        print(plain, kept, grown, resident() - before)
    """
    printed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    ).stdout
    plain, kept, grown, after = map(int, printed.split())
    assert kept < plain / 4
    assert grown > 2**24  # the activations
    assert after < grown / 4
