"""Groups of similar handwritten digits, by k-means (Lloyd 1982) on the images that scikit-learn brings along.

Each rank finds the nearest centre for its block of images and adds them up.  The sums are shared, and a lock guards
them; the centres are shared, and rank 0 renews them between two barriers.  Pixels are whole numbers up to 16, so the
sums are exact in any order, and the result is the same as the serial one, bit by bit.

    mpiexec -n 4 python kmeans.py                   # or: python -m dsm run -n 4 kmeans.py
    mpiexec -n 4 python kmeans.py --groups 20
"""

import argparse
import time

import numpy as np

import dsm


def load_images():
    """1,797 images of 8 x 8 pixels as rows of 64 numbers, and the digits that they show."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.data, digits.target


def nearest(images, centers):
    """For each image the nearest centre and the square of its distance."""
    squares = np.stack([((images - center) ** 2).sum(axis=1) for center in centers], axis=1)
    return squares.argmin(axis=1), squares.min(axis=1)


def add_up(images, groups, k):
    """Sum and number of the images in each group."""
    sums = np.zeros((k, images.shape[1]))
    np.add.at(sums, groups, images)
    return sums, np.bincount(groups, minlength=k)


def renew(centers, sums, counts):
    """Move each centre to the mean of its group; the centre of an empty group stays."""
    used = counts > 0
    centers[used] = sums[used] / counts[used, None]


def cluster(images, k, rounds):
    """The centres, and the group of each image.  Collective."""
    centers = dsm.array(images[:k], name="centers")
    sums = dsm.zeros(centers.shape, name="sums")
    counts = dsm.zeros(k, int, name="counts")
    groups = dsm.zeros(len(images), int, name="groups")
    lock = dsm.Lock()
    mine = dsm.split(len(images))
    for _ in range(rounds):
        groups[mine], _ = nearest(images[mine], centers)
        part_sums, part_counts = add_up(images[mine], groups[mine], k)
        with lock:
            sums += part_sums
            counts += part_counts
        dsm.barrier()
        if dsm.rank() == 0:
            renew(centers, sums, counts)
            sums[:] = 0
            counts[:] = 0
        dsm.barrier()
    return centers, groups


def cluster_alone(images, k, rounds):
    """The same in private memory: the serial reference."""
    centers = images[:k].copy()
    for _ in range(rounds):
        groups, _ = nearest(images, centers)
        renew(centers, *add_up(images, groups, k))
    return centers, groups


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    data, digits = load_images() if dsm.rank() == 0 else (None, None)
    images = dsm.array(data, name="images")  # rank 0's, for everybody
    start = time.perf_counter()
    centers, groups = cluster(images, options.groups, options.rounds)
    seconds = time.perf_counter() - start
    if dsm.rank() == 0:
        reference_centers, reference_groups = cluster_alone(data, options.groups, options.rounds)
        assert np.array_equal(centers, reference_centers)
        assert np.array_equal(groups, reference_groups)
        _, squares = nearest(data, centers)
        common = sum(np.bincount(digits[groups == k]).max(initial=0) for k in range(options.groups))
        print(f"kmeans: {len(data)} images in {options.groups} groups, the same as serial bit by bit")
        print(f"  mean square distance {squares.mean():.4f}; {common / len(data):.1%} lie with their own digit")
        print(f"  {dsm.size()} ranks {seconds:.2f} s")
        print(f"  {dsm.stats()}")


if __name__ == "__main__":
    main()
