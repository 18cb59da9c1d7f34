#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Adds the layer ClassDistance, and what HDF5Data needs for its examples, to a tree of BVLC Caffe.

It copies the files of overlay/ and lgm's headers, and inserts lines at places that it knows. Where one of them is missing it
changes nothing. A second run changes nothing either."""
import argparse
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
OURS = "SPDX-License-Identifier: MIT"

LAYER_FIELD = """\
  optional ClassDistanceParameter class_distance_param = 150;
"""
MESSAGES = """\
// A number that changes with the training iteration. `iter` iterations have been done before the first.
message ParamParameter {
  enum Policy {
    CONSTANT = 0;  // value
    STEPUP = 1;    // multiplied by gamma every `step` iterations
    ADDUP = 3;     // gamma is added every `step` iterations
  }
  optional Policy policy = 1 [default = CONSTANT];
  optional float value = 2 [default = 0];
  optional float min = 3 [default = 0];
  optional float max = 4 [default = 1];
  optional float gamma = 5 [default = 1];
  optional int32 step = 6 [default = 1000];
  optional int32 iter = 7 [default = 0];
}

// The large-margin Gaussian mixture: logits from the distances to the classes' means.
message ClassDistanceParameter {
  enum Metric {
    L2 = 0;  // minus half the squared distance over the variance
    IP = 1;  // the inner product; variances are not used
    L1 = 2;  // not supported
  }
  enum Formula {
    AUTHORS = 0;  // as the layer of the paper's authors computes it
    PAPER = 1;    // log determinants in the logits, and the likelihood as a second top
  }
  optional uint32 num_output = 1;                      // classes
  optional bool bias_term = 2 [default = false];       // has no effect
  optional FillerParameter weight_filler = 3;          // of the means
  optional FillerParameter bias_filler = 4;            // of the variances
  optional ParamParameter margin_mul = 5;              // alpha
  optional Metric metric = 6 [default = L2];
  optional float center_coef = 7 [default = 0];        // lambda, the weight of the likelihood
  optional bool block_mul_grad = 8 [default = false];  // not supported
  optional float dropout_ratio = 9 [default = 0];      // not supported
  optional bool ignore_zero = 10 [default = false];    // not supported
  optional bool update_sigma = 11 [default = false];   // whether variances have a gradient
  optional bool isotropic = 12 [default = true];       // one variance a class, or one a class and dimension
  optional Formula formula = 13 [default = AUTHORS];
}

"""
HDF5_FIELDS = """\

  // Of the first top: a random crop when training, the centre (and then the corners, crop_num in all) when testing; minus
  // mean_value, one or one a channel; mirrored with probability 1/2 when training; times scale.
  optional float scale = 4 [default = 1];
  optional bool mirror = 5 [default = false];
  repeated float mean_value = 6;
  optional uint32 crop_size = 7 [default = 0];
  optional uint32 crop_num = 8 [default = 1];
"""
APPLY = """\
      if (j == 0 && transform_.active()) {
        transform_.Apply(*hdf_blobs_[j], data_permutation_[current_row_], i, top[j]);
        continue;
      }
"""
LOOP = "    for (int j = 0; j < this->layer_param_.top_size(); ++j) {\n"
PROTO = "src/caffe/proto/caffe.proto"

# File, the lines before the insertion, the insertion, the lines after it.
INSERTIONS = [
    (PROTO, "", LAYER_FIELD, "  optional ConcatParameter concat_param = 104;\n"),
    (PROTO, "", MESSAGES, "message ConcatParameter {\n"),
    (PROTO, "  optional bool shuffle = 3 [default = false];\n", HDF5_FIELDS, "}\n\nmessage HDF5OutputParameter {\n"),
    ("include/caffe/layers/hdf5_data_layer.hpp", '#include "caffe/layers/base_data_layer.hpp"\n',
     '#include "caffe/util/hdf5_transform.hpp"\n', ""),
    ("include/caffe/layers/hdf5_data_layer.hpp", "  uint64_t offset_;\n", "  HDF5Transform<Dtype> transform_;\n", ""),
    ("src/caffe/layers/hdf5_data_layer.cpp", "",
     "    if (i == 0) transform_.SetUp(this->layer_param_.hdf5_data_param(), this->phase_, &top_shape);\n",
     "    top[i]->Reshape(top_shape);\n"),
    ("src/caffe/layers/hdf5_data_layer.cpp", LOOP, APPLY, "      int data_dim = "),
    ("src/caffe/layers/hdf5_data_layer.cu", LOOP, APPLY, "      int data_dim = "),
    ("src/caffe/CMakeLists.txt", "caffe_pickup_caffe_sources(${PROJECT_SOURCE_DIR})\n",
     "include(${PROJECT_SOURCE_DIR}/cmake/Lgm.cmake)\n", ""),
]

# A call that today's protobuf takes without its second argument. Where it is not found there is nothing to do.
OLD_CALL = ("src/caffe/util/io.cpp", "SetTotalBytesLimit(kProtoReadBytesLimit, 536870912)",
            "SetTotalBytesLimit(kProtoReadBytesLimit)")


class NotCaffe(Exception):
    pass


def edited(tree):
    """Path and new text of every file that gets a line."""
    texts = {}
    for name, before, insertion, after in INSERTIONS:
        path = tree / name
        if name not in texts:
            if not path.is_file():
                raise NotCaffe(f"{path} is missing")
            texts[name] = path.read_text(encoding="utf-8")
        text = texts[name]
        if text.count(before + insertion + after) == 1:
            continue
        if text.count(before + after) != 1:
            raise NotCaffe(f"{path} has no place for:\n{insertion}")
        texts[name] = text.replace(before + after, before + insertion + after)
    name, old, new = OLD_CALL
    if (tree / name).is_file():
        texts[name] = (tree / name).read_text(encoding="utf-8").replace(old, new)
    for pattern, what in ((r"\boptional \w+ (\w+) = 150;", "field 150 of LayerParameter"),
                          (r"\bmessage (ParamParameter) ", "a message ParamParameter"),
                          (r"\bmessage (ClassDistanceParameter) ", "a message ClassDistanceParameter")):
        if len(re.findall(pattern, texts[PROTO])) != 1:
            raise NotCaffe(f"{tree / PROTO} has {what} of its own")
    return {tree / name: text for name, text in texts.items()}


def copied(tree, include):
    """Path and text of every file that is added."""
    texts = {}
    for root, base in ((HERE / "overlay", HERE / "overlay"), (include / "lgm", include)):
        target = tree if base != include else tree / "include"
        for file in sorted(f for f in root.rglob("*") if f.is_file()):
            if base == include and file.suffix not in (".hpp", ".cuh"):
                continue
            path = target / file.relative_to(base)
            if path.is_file() and OURS not in path.read_text(encoding="utf-8").split("\n", 1)[0]:
                raise NotCaffe(f"{path} exists and is not lgm's")
            texts[path] = file.read_text(encoding="utf-8")
    if not any(path.name == "lgm.hpp" for path in texts):
        raise NotCaffe(f"{include} has no lgm/lgm.hpp")
    return texts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("tree", type=pathlib.Path, help="a source tree of BVLC Caffe")
    parser.add_argument("--lgm", type=pathlib.Path, default=HERE.parents[1] / "include", metavar="DIR",
                        help="the folder that has lgm/ (default: this repository's include)")
    arguments = parser.parse_args()
    try:
        texts = {**edited(arguments.tree), **copied(arguments.tree, arguments.lgm)}
    except NotCaffe as error:
        sys.exit(f"add_to_caffe: {error}\nNothing was changed. This is for BVLC Caffe's master: "
                 "git clone https://github.com/BVLC/caffe")
    changed = 0
    for path, text in texts.items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        changed += 1
    print(f"{arguments.tree}: {changed} files written, {len(texts) - changed} as they were")


if __name__ == "__main__":
    main()
