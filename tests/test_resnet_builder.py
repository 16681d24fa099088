from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import interlocking_backprop as ib
from interlocking_backprop import resnet_builder
from interlocking_backprop.resnet_builder import describe, load_plain_state_dict, resnet, to_plain

SMALL = "8,2/16,2"  # with stem and head 6 blocks
HEAD = "conv8_bn_gbpl_fc"
CUTS = ["rest", ["1", "1", "rest"], "2,3,rest", (5, "rest"), 1, 4, 6]


def small(cut="1,2,rest", seed=0, **options) -> tuple[list[nn.Module], list[nn.Module]]:
    torch.manual_seed(seed)
    return resnet("basic", SMALL, HEAD, cut, **{"dataset": "digits", **options})


def in_a_row(nets: list[nn.Module], x: Tensor) -> Tensor:
    for net in nets:
        x = net(x)
    return x


def n_blocks(nets: list[nn.Module]) -> list[int]:
    return [len(list(net.children())) for net in nets]


def test_arguments_in_the_order_of_the_reference():
    main_nets, aux_nets = resnet("bottleneck", "4,1/8,2", "gbpl_fc", ["1", "2", "rest"], "cifar10", 7)
    assert n_blocks(main_nets) == [1, 2, 2]
    assert len(aux_nets) == 2
    assert in_a_row(main_nets, torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_default_is_resnet34_for_cifar10_in_three_components():
    with torch.device("meta"):
        main_nets, aux_nets = resnet()
        assert in_a_row(main_nets, torch.empty(2, 3, 32, 32)).shape == (2, 10)
    assert n_blocks(main_nets) == [1, 1, 16]
    assert [tuple(aux_net[0].weight.shape) for aux_net in aux_nets] == [(128, 64, 3, 3)] * 2


@pytest.mark.parametrize(
    ("dataset", "shape", "n_classes"),
    [
        ("cifar10", (3, 32, 32), 10),
        ("cifar100", (3, 32, 32), 100),
        ("imagenet", (3, 224, 224), 1000),
        ("digits", (1, 8, 8), 10),
        ("fashion-mnist", (1, 28, 28), 10),
    ],
)
def test_datasets_set_channels_and_classes(dataset, shape, n_classes):
    with torch.device("meta"):
        main_nets, aux_nets = resnet("basic", SMALL, HEAD, 3, dataset)
        x = main_nets[0](torch.empty(2, *shape))
        assert in_a_row(main_nets[1:], x).shape == aux_nets[0](x).shape == (2, n_classes)
    assert resnet_builder.DATASETS[dataset].image_size == shape[-1]


def test_any_dataset_that_is_described_in_full():
    main_nets, _ = resnet("basic", SMALL, HEAD, 2, "mine", 4, in_channels=5, stem="imagenet", image_size=20)
    assert in_a_row(main_nets, torch.randn(2, 5, 20, 20)).shape == (2, 4)


@pytest.mark.parametrize("cut", CUTS)
def test_every_cut_is_the_same_network(cut):
    x = torch.randn(4, 1, 8, 8)
    main_nets, aux_nets = small(cut)
    reference, _ = small("rest")
    assert sum(n_blocks(main_nets)) == 6
    assert len(aux_nets) == len(main_nets) - 1
    state = {key: value for net in main_nets for key, value in net.state_dict().items()}
    assert state.keys() == reference[0].state_dict().keys()
    assert torch.equal(in_a_row(main_nets, x), reference[0](x))
    assert torch.equal(to_plain(main_nets)(x), to_plain(reference)(x))


def test_keys_say_where_a_block_is():
    main_nets, _ = small("3,rest")
    assert "stem.conv1.weight" in main_nets[0].state_dict()
    assert "layer2_1.bn1.weight" in main_nets[1].state_dict()
    assert "head.fc.weight" in main_nets[1].state_dict()


def test_main_weights_do_not_depend_on_the_auxiliary_nets():
    states = []
    for arch in ("gbpl_fc", HEAD):
        torch.manual_seed(0)
        states.append(to_plain(resnet("basic", SMALL, arch, 3, "digits")[0]).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_auxiliary_nets_are_initialised_too():
    _, aux_nets = resnet("basic", "32,2", "conv64_gbpl_fc", dataset="digits")
    for aux_net in aux_nets:
        assert aux_net[0].weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_number_of_components_cuts_them_evenly():
    with torch.device("meta"):
        main_nets, _ = resnet("basic", "16,3/32,3/64,3", blocks_per_component=3)
    # Basic blocks cost the same at every width; a first block of a superblock costs less, the stem and the head little.
    assert n_blocks(main_nets) == [4, 3, 4]


@pytest.mark.parametrize("block_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_plain_net_computes_the_same_bit_for_bit(block_type, stem):
    main_nets, _ = resnet(block_type, "8,2/16,1/24,1", HEAD, "2,1,rest", "cifar10", stem=stem)
    plain = to_plain(main_nets)
    for mode in (True, False):
        plain.train(mode)
        x = torch.randn(3, 3, 32, 32)
        assert torch.equal(plain(x), in_a_row(main_nets, x))


def test_plain_net_shares_its_modules_and_their_mode():
    main_nets, _ = small()
    for net in main_nets:
        net.eval()
    plain = to_plain(main_nets)
    assert {id(p) for p in plain.parameters()} == {id(p) for net in main_nets for p in net.parameters()}
    assert not any(module.training for module in plain.modules())


def test_plain_net_of_components_that_are_not_all_there():
    main_nets, _ = small()
    for nets in ([], main_nets[1:], main_nets[:-1], main_nets[::-1], [nn.Linear(1, 1)]):
        with pytest.raises(ValueError, match="all the main nets that resnet\\(\\) returned"):
            to_plain(nets)


@pytest.mark.parametrize("cut", CUTS)
def test_state_dict_goes_round_through_the_plain_net(cut):
    source, _ = small("2,rest", seed=1)
    in_a_row(source, torch.randn(4, 1, 8, 8))  # moves the BatchNorm statistics
    target, _ = small(cut, seed=2)
    assert load_plain_state_dict(target, to_plain(source).state_dict()) == ([], [])
    expected = to_plain(source).state_dict()
    for key, value in to_plain(target).state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_state_dict_without_batch_counts_loads():
    source, target = small(seed=1)[0], small(seed=2)[0]
    state = {k: v for k, v in to_plain(source).state_dict().items() if not k.endswith("num_batches_tracked")}
    assert load_plain_state_dict(target, state) == ([], [])
    assert torch.equal(to_plain(target).fc.weight, to_plain(source).fc.weight)


def test_state_dict_that_does_not_fit_is_named_and_nothing_is_loaded():
    main_nets, _ = small()
    before = {key: value.clone() for key, value in to_plain(main_nets).state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    del state["layer1.0.conv1.weight"]
    state |= {"layer9.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(3, 16)}
    with pytest.raises(ValueError, match="Build the network with the block_type") as caught:
        load_plain_state_dict(main_nets, state)
    assert "lacks layer1.0.conv1.weight;" in str(caught.value)
    assert "has no layer9.0.conv1.weight;" in str(caught.value)
    assert "fc.weight (3, 16) in place of (10, 16)" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in to_plain(main_nets).state_dict().items())


def test_long_lists_of_keys_are_cut_short():
    main_nets, _ = small()
    with pytest.raises(ValueError, match=r"lacks conv1.weight, .*, … \(\d\d in all\); the network has no model\."):
        load_plain_state_dict(main_nets, {"model": torch.zeros(1)})


def test_weights_for_other_classes_load_without_the_head():
    source, _ = small(n_classes=7, seed=1)
    target, _ = small(seed=2)
    state = to_plain(source).state_dict()
    with pytest.raises(ValueError, match=r"fc\.weight .*drop the entries that are not wanted"):
        load_plain_state_dict(target, state, strict=False)
    del state["fc.weight"], state["fc.bias"]
    assert load_plain_state_dict(target, state, strict=False) == (["fc.weight", "fc.bias"], [])
    assert torch.equal(to_plain(target).conv1.weight, to_plain(source).conv1.weight)


def test_state_dict_with_nothing_in_common_is_an_error_even_if_not_strict():
    with pytest.raises(ValueError, match="does not fit"):
        load_plain_state_dict(small()[0], {"module.conv1.weight": torch.zeros(8, 1, 3, 3)}, strict=False)


def test_description():
    main_nets, _ = small("1,3,rest")
    assert describe(main_nets) == (
        "component 0: stem, 88 parameters\n"
        "component 1: layer1_0 … layer2_0 (3 blocks), 6,048 parameters\n"
        "component 2: layer2_1 … head (2 blocks), 4,842 parameters"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_type": "wide"}, "block_type is 'wide'; expected one of 'basic', 'bottleneck'"),
        ({"architecture": "64;3"}, "architecture '64;3'"),
        ({"aux_net_architecture": "conv8_fc"}, "auxiliary net 'conv8_fc'"),
        ({"aux_net_architecture": "conv8_fc", "blocks_per_component": "rest"}, "auxiliary net 'conv8_fc'"),
        ({"blocks_per_component": ["1", "1"]}, "blocks_per_component '1,1'"),
        ({"blocks_per_component": 0}, "blocks_per_component is 0; expected a number of components from 1 to 18"),
        ({"blocks_per_component": 19}, "blocks_per_component is 19; expected a number of components from 1 to 18"),
        ({"blocks_per_component": None}, "blocks_per_component is None"),
        ({"dataset": "mine"}, "'digits'.* give in_channels, image_size, n_classes, stem too"),
        ({"dataset": "mine", "n_classes": 3, "stem": "cifar"}, "give in_channels, image_size too"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"in_channels": 1.5}, "in_channels is 1.5"),
        ({"image_size": -1}, "image_size is -1"),
        ({"stem": "vgg"}, "stem is 'vgg'; expected one of 'cifar', 'imagenet'"),
        ({"stem_stride": 0}, "stem_stride is 0"),
        ({"stem": "imagenet", "stem_stride": 2}, "leave it out, or choose stem='cifar'"),
    ],
)
def test_argument_that_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        resnet(**options)


def test_training_step_moves_every_main_parameter():
    torch.manual_seed(0)
    main_nets, aux_nets = resnet("basic", "8,3/16,3", HEAD, 6, "digits")
    model = ib.build_model(
        main_nets, aux_nets, ib.nwise(6, 3), lambda p: torch.optim.SGD(p, lr=0.05), F.cross_entropy, seed=0
    )
    before = [p.detach().clone() for p in model.main_net_parameters()]
    loss = model.training_step(torch.randn(8, 1, 8, 8), torch.arange(8)).result()
    assert torch.isfinite(loss)
    assert not any(torch.equal(p, old) for p, old in zip(model.main_net_parameters(), before, strict=True))


@pytest.mark.parametrize("cut", ["2,1,rest", 6])
def test_end_to_end_training_is_that_of_the_plain_net(cut):
    main_nets, _ = small(cut)
    plain = to_plain(small("rest")[0])
    model = ib.build_e2e_model(main_nets, lambda p: torch.optim.SGD(p, lr=0.1), None, F.cross_entropy, seed=0)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        x, y = torch.randn(8, 1, 8, 8), torch.arange(8)
        model.training_step(x, y).result()
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    for (key, value), trained in zip(plain.named_parameters(), to_plain(main_nets).parameters(), strict=True):
        torch.testing.assert_close(trained, value, rtol=1e-5, atol=1e-6, msg=key)
