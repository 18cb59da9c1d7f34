// SPDX-License-Identifier: MIT

// HDF5Data with the fields that add_to_caffe.py adds: crop, mean, mirror and scale of the first top.

#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "caffe/layers/hdf5_data_layer.hpp"
#include "caffe/util/hdf5.hpp"

namespace {

using caffe::Blob;
using std::vector;

template <class T>
class HDF5Data : public testing::Test {
 protected:
  static constexpr int images = 7, channels = 2, height = 6, width = 8;

  // A number that tells where it comes from.
  static double pixel(int image, int c, int h, int w) {
    return ((image * channels + c) * height + h) * width + w;
  }

  HDF5Data() : file_(testing::TempDir() + "hdf5_data_test.h5"), list_(file_ + ".txt") {
    Blob<T> data(vector<int>{images, channels, height, width}), label(vector<int>{images});
    for (int i = 0; i < data.count(); ++i) data.mutable_cpu_data()[i] = static_cast<T>(i);
    for (int i = 0; i < images; ++i) label.mutable_cpu_data()[i] = static_cast<T>(i);
    const hid_t file = H5Fcreate(file_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    caffe::hdf5_save_nd_dataset(file, "data", data);
    caffe::hdf5_save_nd_dataset(file, "label", label);
    H5Fclose(file);
    std::ofstream(list_) << file_ << "\n";
  }
  ~HDF5Data() {
    std::remove(file_.c_str());
    std::remove(list_.c_str());
  }

  // A layer that reads `batch` images at a time.
  void open(const caffe::HDF5DataParameter& fields, bool train, int batch) {
    caffe::LayerParameter parameter;
    parameter.set_phase(train ? caffe::TRAIN : caffe::TEST);
    parameter.add_top("data");
    parameter.add_top("label");
    *parameter.mutable_hdf5_data_param() = fields;
    parameter.mutable_hdf5_data_param()->set_source(list_);
    parameter.mutable_hdf5_data_param()->set_batch_size(batch);
    caffe::Caffe::set_random_seed(3);
    layer_.reset(new caffe::HDF5DataLayer<T>(parameter));
    layer_->SetUp({}, {&data_, &label_});
  }
  void read() { layer_->Forward({}, {&data_, &label_}); }
  double at(int n, int c, int h, int w) { return data_.data_at(n, c, h, w); }

  std::string file_, list_;
  boost::shared_ptr<caffe::HDF5DataLayer<T>> layer_;
  Blob<T> data_, label_;
};
using number_types = testing::Types<float, double>;
TYPED_TEST_SUITE(HDF5Data, number_types);

TYPED_TEST(HDF5Data, WithoutFieldsIsCaffes) {
  this->open({}, true, 5);
  ASSERT_EQ((vector<int>{5, 2, 6, 8}), this->data_.shape());
  for (int batch = 0; batch < 4; ++batch) {
    this->read();
    for (int n = 0; n < 5; ++n) {
      const int image = (batch * 5 + n) % this->images;
      EXPECT_EQ(image, this->label_.cpu_data()[n]);
      for (int h = 0; h < 6; ++h)
        for (int w = 0; w < 8; ++w) EXPECT_EQ(this->pixel(image, 1, h, w), this->at(n, 1, h, w));
    }
  }
}

TYPED_TEST(HDF5Data, TestCropsTheCentre) {
  caffe::HDF5DataParameter fields;
  fields.set_crop_size(4);
  fields.add_mean_value(10);
  fields.add_mean_value(100);
  fields.set_scale(0.5);
  fields.set_mirror(true);  // only when training
  this->open(fields, false, 7);
  ASSERT_EQ((vector<int>{7, 2, 4, 4}), this->data_.shape());
  this->read();
  for (int n = 0; n < 7; ++n)
    for (int h = 0; h < 4; ++h)
      for (int w = 0; w < 4; ++w) {
        EXPECT_EQ((this->pixel(n, 0, h + 1, w + 2) - 10) / 2, this->at(n, 0, h, w));
        EXPECT_EQ((this->pixel(n, 1, h + 1, w + 2) - 100) / 2, this->at(n, 1, h, w));
      }
}

TYPED_TEST(HDF5Data, TestCropsTheCorners) {
  caffe::HDF5DataParameter fields;
  fields.set_crop_size(4);
  fields.set_crop_num(5);
  this->open(fields, false, 3);
  ASSERT_EQ((vector<int>{15, 2, 4, 4}), this->data_.shape());
  ASSERT_EQ((vector<int>{3}), this->label_.shape());
  this->read();
  const int tops[] = {1, 0, 2, 0, 2}, lefts[] = {2, 0, 4, 4, 0};
  for (int n = 0; n < 15; ++n) {
    EXPECT_EQ(this->pixel(n / 5, 0, tops[n % 5], lefts[n % 5]), this->at(n, 0, 0, 0));
    EXPECT_EQ(this->pixel(n / 5, 1, tops[n % 5] + 3, lefts[n % 5] + 3), this->at(n, 1, 3, 3));
  }
}

// Every crop and both directions come, evenly; each image is whole, and next to its label.
TYPED_TEST(HDF5Data, TrainingCropsAndMirrorsAtRandom) {
  caffe::HDF5DataParameter fields;
  fields.set_crop_size(4);
  fields.set_mirror(true);
  fields.set_shuffle(true);
  fields.add_mean_value(1);
  this->open(fields, true, 7);
  ASSERT_EQ((vector<int>{7, 2, 4, 4}), this->data_.shape());
  std::set<std::tuple<int, int, bool>> seen;
  std::set<std::pair<int, bool>> first_batch;
  int mirrored = 0;
  const int batches = 200;
  for (int batch = 0; batch < batches; ++batch) {
    this->read();
    for (int n = 0; n < 7; ++n) {
      const int image = static_cast<int>(this->label_.cpu_data()[n]);
      const bool flip = this->at(n, 0, 0, 0) > this->at(n, 0, 0, 1);
      const int corner = static_cast<int>(this->at(n, 0, 0, flip ? 3 : 0)) + 1 - image * 96;
      const int y = corner / 8, x = corner % 8;
      ASSERT_TRUE(y >= 0 && y <= 2 && x >= 0 && x <= 4) << corner;
      for (int c = 0; c < 2; ++c)
        for (int h = 0; h < 4; ++h)
          for (int w = 0; w < 4; ++w)
            ASSERT_EQ(this->pixel(image, c, y + h, x + (flip ? 3 - w : w)) - 1, this->at(n, c, h, w));
      seen.emplace(y, x, flip);
      if (batch == 0) first_batch.emplace(corner, flip);
      mirrored += flip;
    }
  }
  EXPECT_EQ(30U, seen.size());
  EXPECT_LT(2U, first_batch.size());                  // not one draw for all
  EXPECT_NEAR(0.5, mirrored / (7. * batches), 0.06);  // 4 deviations
}

TYPED_TEST(HDF5Data, ScaleAlone) {
  caffe::HDF5DataParameter fields;
  fields.set_scale(0.25);
  this->open(fields, true, 1);
  this->read();
  EXPECT_EQ(this->pixel(0, 1, 2, 3) / 4, this->at(0, 1, 2, 3));
}

TYPED_TEST(HDF5Data, Refuses) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  caffe::HDF5DataParameter fields;
  fields.set_crop_num(2);
  EXPECT_DEATH(this->open(fields, false, 1), "crop_num needs crop_size");
  fields.set_crop_size(7);
  EXPECT_DEATH((this->open(fields, false, 1), this->read()), "crop_size 7");
  fields.Clear();
  for (int i = 0; i < 3; ++i) fields.add_mean_value(0);
  EXPECT_DEATH(this->open(fields, false, 1), "mean_value");
}

}  // namespace
