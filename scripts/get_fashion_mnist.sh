#!/bin/sh
# Puts the four Fashion-MNIST files into a folder, out of Debian's package of them. Needs no root rights: the package is
# downloaded and unpacked, not installed.
set -eu

package=dataset-fashion-mnist
files="train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz"
otherwise="Or let the Hugging Face hub's copy be used: --data hub:zalando-datasets/fashion_mnist."

fail() {
    echo "get_fashion_mnist.sh: $1" >&2
    exit 1
}

has_all() {
    for file in $files; do
        [ -f "$1/$file" ] || return 1
    done
}

[ $# -eq 1 ] || fail "expected one argument, the folder for the files, e.g. data/fashion-mnist."
destination=$1

if has_all "$destination"; then
    echo "Fashion-MNIST is in $destination already."
    exit 0
fi

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null ||
        fail "$tool is missing: this script is for Debian and its relatives. Put these files into $destination yourself: $files. $otherwise"
done

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 1' HUP INT TERM

# Started as root, apt-get would hand the download to a user who may not write here.
(cd "$temporary" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
    fail "apt-get could not download $package. If it does not know the package, run \`apt-get update\` first. $otherwise"
dpkg -x "$temporary/$package"_*.deb "$temporary/unpacked" || fail "dpkg could not unpack $package. $otherwise"

source=$(dirname "$(find "$temporary/unpacked" -name train-images-idx3-ubyte.gz)")
has_all "$source" || fail "$package does not hold the expected files ($files). $otherwise"

mkdir -p "$destination"
for file in $files; do
    # Under another name first: a copy that is interrupted must not look like the file.
    cp "$source/$file" "$destination/.$file.part"
    mv "$destination/.$file.part" "$destination/$file"
done
echo "Fashion-MNIST is in $destination."
