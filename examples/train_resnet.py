"""How to train a ResNet on CIFAR-10 with various schemes, one component after another on one device.

    python examples/train_resnet.py --dataset_root data --mode pairwise

The binary version of CIFAR-10 (folder ``cifar-10-batches-bin``) is expected under the root. The recipe is that of the
paper: SGD with momentum, batch 128, 200 epochs, learning rate divided by 10 after epochs 91, 136 and 182.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import MultiStepLR

import interlocking_backprop as ib
from interlocking_backprop import resnet_builder
from interlocking_backprop.data import batches, load_data

MODES = ("e2e", "local", "pairwise", "3wise")


def main(args: Namespace) -> None:
    data = load_data(args.dataset, args.dataset_root)

    # With n components: one block in each, and all that remain in the last. The block type and the architecture are
    # those of the paper's CIFAR-10 experiments.
    torch.manual_seed(args.seed)
    main_nets, aux_nets = resnet_builder.resnet(
        block_type="basic",
        architecture=args.architecture,
        aux_net_architecture="conv128_bn_conv64_bn_gbpl_fc",
        blocks_per_component=["1"] * (args.components - 1) + ["rest"],
        dataset=args.dataset,
        n_classes=data.n_classes,
    )
    print(resnet_builder.describe(main_nets))

    def optimizer_constructor(params: Iterable[torch.nn.Parameter]) -> Optimizer:
        return SGD(params, lr=0.1, momentum=0.9, weight_decay=2e-4)

    def lr_scheduler_constructor(optimizer: Optimizer) -> MultiStepLR:
        return MultiStepLR(optimizer, milestones=[91, 136, 182], gamma=0.1)

    loss_function = F.cross_entropy
    common = (optimizer_constructor, lr_scheduler_constructor, loss_function)
    if args.mode == "e2e":
        model = ib.build_e2e_model(main_nets, *common)
    elif args.mode == "local":
        model = ib.build_local_model(main_nets, aux_nets, *common)
    elif args.mode == "pairwise":
        model = ib.build_pairwise_model(main_nets, aux_nets, *common)
    else:
        model = ib.build_nwise_model(main_nets, aux_nets, *common, nwise_communication_distance=3 - 1)
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    print(f"Epoch 0: validation accuracy = {accuracy(model, batches(data.validation, 256)):.2f}")
    for epoch in range(args.epochs):
        model.train()
        losses = []
        for inputs, targets in batches(data.train, 128, seed=args.seed, epoch=epoch, shuffle=True):
            losses.append(model.training_step(inputs, targets))
        train_loss = torch.stack([loss.result() for loss in losses]).mean().item()
        validation_accuracy = accuracy(model, batches(data.validation, 256))
        model.lr_scheduler_step(-validation_accuracy)
        print(
            f"Epoch {epoch + 1}: training loss = {train_loss:.3f} validation accuracy = {validation_accuracy:.2f}",
            flush=True,
        )
    model.shutdown()


def accuracy(model: ib.InterlockingBackpropModel, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of samples that the network classifies correctly."""
    model.eval()
    n_correct = n_total = 0
    for inputs, targets in batches:
        scores = model(inputs)
        n_correct += int((scores.argmax(dim=1) == targets.to(model.get_output_device())).sum())
        n_total += len(targets)
    return n_correct / n_total


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_root", default="data", help="folder with the data set")
    parser.add_argument("--mode", choices=MODES, required=True, help="which loss trains which component")
    parser.add_argument("--components", type=int, default=4, help="into how many components the network is cut")
    parser.add_argument("--dataset", default="cifar10", help="cifar10, cifar100, fashion-mnist or digits")
    parser.add_argument("--architecture", default="64,3/128,4/256,6/512,3", help="planes,blocks of each superblock")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    try:
        main(parser.parse_args())
    except ValueError as error:
        sys.exit(f"train_resnet.py: error: {error}")
