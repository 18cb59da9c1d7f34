// SPDX-License-Identifier: MIT

// The layer ClassDistance: the authors' formulas against a transcription in float64, the paper's against Caffe's
// GradientChecker, fields that are refused.

#include <glog/logging.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "caffe/layers/class_distance_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/util/math_functions.hpp"
#include "reference.hpp"

namespace {

using caffe::Blob;
using caffe::ClassDistanceParameter;
using caffe::LayerParameter;
using caffe::ParamParameter;
using std::vector;

template <class T>
class ClassDistance : public testing::Test {};
using number_types = testing::Types<float, double>;
TYPED_TEST_SUITE(ClassDistance, number_types);

// A layer with its blobs, and the problem that it is given.
template <class T>
struct bench {
  problem p;
  LayerParameter parameter;
  Blob<T> x, z, logits, likelihood;
  vector<Blob<T>*> bottom, top;
  boost::shared_ptr<caffe::ClassDistanceLayer<T>> layer;
  std::mt19937 random;

  bench(sizes n, const ClassDistanceParameter& fields, bool train, bool labelled, bool second_top = false)
      : x(vector<int>{n.samples, n.dims}), z(vector<int>{n.samples}), random(7) {
    p.n = n;
    p.product = fields.metric() == caffe::ClassDistanceParameter_Metric_IP;
    p.isotropic = fields.isotropic();
    p.update_sigma = fields.update_sigma();
    p.labelled = labelled;
    p.train = train;
    p.margin = fields.margin_mul().value();
    p.center_coef = fields.center_coef();
    parameter.set_phase(train ? caffe::TRAIN : caffe::TEST);
    *parameter.mutable_class_distance_param() = fields;
    parameter.mutable_class_distance_param()->set_num_output(n.classes);
    bottom.push_back(&x);
    if (labelled) bottom.push_back(&z);
    top.push_back(&logits);
    if (second_top) top.push_back(&likelihood);
    layer.reset(new caffe::ClassDistanceLayer<T>(parameter));
    layer->SetUp(bottom, top);
    draw(0.4, 2);
  }

  T uniform(double low, double high) {
    return static_cast<T>(std::uniform_real_distribution<>(low, high)(random));
  }
  void fill(int count, T* to, vector<double>* also, double low, double high) {
    also->resize(count);
    for (int i = 0; i < count; ++i) (*also)[i] = to[i] = uniform(low, high);
  }
  void draw(double variance_low, double variance_high) {
    fill(x.count(), x.mutable_cpu_data(), &p.x, -2, 2);
    fill(layer->blobs()[0]->count(), layer->blobs()[0]->mutable_cpu_data(), &p.w, -2, 2);
    fill(layer->blobs()[1]->count(), layer->blobs()[1]->mutable_cpu_data(), &p.s, variance_low,
         variance_high);
    p.z.resize(p.n.samples);
    for (int i = 0; i < p.n.samples; ++i)
      z.mutable_cpu_data()[i] = p.z[i] = std::uniform_int_distribution<>(0, p.n.classes - 1)(random);
    fill(logits.count(), logits.mutable_cpu_diff(), &p.g, -1, 1);
  }
  void set_variance(int at, double value) {
    layer->blobs()[1]->mutable_cpu_data()[at] = static_cast<T>(value);
    p.s[at] = layer->blobs()[1]->cpu_data()[at];
  }
  // The parameters' gradients add to what is there.
  void backward(double present) {
    for (const auto& blob : layer->blobs())
      caffe::caffe_set(blob->count(), T(present), blob->mutable_cpu_diff());
    vector<bool> down(bottom.size(), false);
    down[0] = true;
    layer->Backward(top, down, bottom);
  }
};

template <class T>
double tolerance() {
  return sizeof(T) == 4 ? 4e-6 : 1e-14;
}

// `extra`: what else is rounded on the way to each number.
template <class T>
void expect_near(const vector<term_sum>& expected, const T* actual, double present, const char* what,
                 const vector<double>& extra = {}) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double size = expected[i].size + std::fabs(present) + (extra.empty() ? 0 : extra[i]);
    ASSERT_NEAR(expected[i].value + present, actual[i], tolerance<T>() * size) << what << " " << i;
  }
}

// One forward and backward pass against the authors' formulas.
template <class T>
void expect_authors(bench<T>* b) {
  b->layer->Forward(b->bottom, b->top);
  const answer expected = authors(b->p);
  const problem& p = b->p;
  // lgm has log determinants in its logits, which are added and taken away again.
  vector<double> log_det(p.n.classes, 0), slope(p.n.classes, 0), of_logits, of_variances;
  for (int k = 0; k < p.n.classes && !p.product; ++k)
    for (int j = 0; j < p.n.dims; ++j)
      log_det[k] += std::fabs(std::log(std::max(p.variance(k, j), p.isotropic ? 1e-4 : 1e-8)));
  for (int i = 0; i < p.n.samples; ++i)
    for (int k = 0; k < p.n.classes; ++k) {
      of_logits.push_back(log_det[k]);
      slope[k] += std::fabs(p.g[i * p.n.classes + k]) * (p.is_target(i, k) ? 1 + std::fabs(p.margin) : 1);
    }
  for (size_t i = 0; i < p.s.size(); ++i) {
    const int k = p.isotropic ? i : i / p.n.dims;
    const double by = p.isotropic ? std::fabs(p.s[i]) : std::max(p.s[i], 0.) + 1e-4;
    of_variances.push_back(slope[k] * (p.isotropic ? p.n.dims : 1) / 2 / by);
  }
  expect_near(expected.logits, b->logits.cpu_data(), 0, "logit", of_logits);
  b->backward(0.25);
  expect_near(expected.x, b->x.cpu_diff(), 0, "feature gradient");
  expect_near(expected.w, b->layer->blobs()[0]->cpu_diff(), 0.25, "mean gradient");
  expect_near(expected.s, b->layer->blobs()[1]->cpu_diff(), 0.25, "variance gradient", of_variances);
}

ClassDistanceParameter fields_of(const std::string& text) {
  ClassDistanceParameter fields;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &fields)) << text;
  return fields;
}

const sizes all_sizes[] = {{1, 1, 1}, {1, 4, 3}, {6, 1, 5}, {5, 3, 1}, {9, 5, 4}, {33, 10, 67}};

TYPED_TEST(ClassDistance, AuthorsFormulasWithEveryField) {
  const char* margins[] = {"",
                           "value: 0.3",
                           "value: 0.7 min: 0.8 max: 0.5",
                           "policy: STEPUP value: 0.1 gamma: 2 step: 2 max: 0.3",
                           "policy: STEPUP value: 4 gamma: 0.5 step: 1 min: 0.6 iter: 1",
                           "policy: ADDUP value: 0.2 gamma: 0.25 step: 2 iter: 3",
                           "policy: ADDUP value: -0.1 gamma: -0.2 step: 1 min: -0.4"};
  for (const sizes& n : all_sizes)
    for (const char* metric : {"L2", "IP"})
      for (int flags = 0; flags < 32; ++flags)
        for (const char* center : {"0", "0.7", "-0.2"})
          for (const char* margin : margins) {
            const auto bit = [&](int at) { return (flags >> at & 1) != 0; };
            const auto flag = [&](int at) { return bit(at) ? "true" : "false"; };
            const std::string text = std::string("metric: ") + metric + " isotropic: " + flag(0) +
                                     " update_sigma: " + flag(1) + " bias_term: " + flag(1) +
                                     " center_coef: " + center + " margin_mul { " + margin + " }";
            SCOPED_TRACE(text + " train: " + flag(2) + " labels: " + flag(3) + " samples " +
                         std::to_string(n.samples));
            const ClassDistanceParameter fields = fields_of(text);
            const ParamParameter& m = fields.margin_mul();
            bench<TypeParam> b(n, fields, bit(2), bit(3));
            if (bit(4)) {
              // Variances at which the formulas' epsilons show.
              b.set_variance(0, b.p.isotropic ? 3e-5 : 3e-9);
              if (b.p.s.size() > 1) b.set_variance(1, -0.5);
              if (b.p.s.size() > 2) b.set_variance(2, 2e-4);
            }
            authors_schedule schedule(
                m.policy() == caffe::ParamParameter_Policy_STEPUP  ? authors_schedule::step_up
                : m.policy() == caffe::ParamParameter_Policy_ADDUP ? authors_schedule::add_up
                                                                   : authors_schedule::constant,
                m.value(), m.min(), m.max(), m.gamma(), m.step(), m.iter());
            for (int pass = 0; pass < 5; ++pass) {
              b.p.margin = bit(2) && bit(3) ? schedule.next() : schedule.now();
              expect_authors(&b);
              if (this->HasFatalFailure()) return;
            }
          }
}

// What the schedule gives, by hand: the inner product of 1 and 1, times 1 + margin.
TYPED_TEST(ClassDistance, SchedulesByHand) {
  struct {
    const char *formula, *margin;
    vector<double> expected;
  } cases[] = {
      {"AUTHORS",
       "policy: STEPUP value: 0.125 gamma: 2 step: 2 max: 0.375",
       {0.125, 0.125, 0.25, 0.25, 0.375, 0.375}},
      {"AUTHORS", "policy: STEPUP value: 0.125 gamma: 2 step: 2 max: 4 iter: 3", {0.25, 0.5, 0.5, 1}},
      {"AUTHORS",
       "policy: STEPUP value: 0.125 gamma: 2 step: 2 max: 4 iter: 4",
       {1, 1, 2}},  // 4 is counted twice
      {"AUTHORS", "policy: ADDUP value: 0.5 gamma: -0.25 step: 1 min: 0.125", {0.5, 0.25, 0.125, 0.125}},
      {"AUTHORS", "value: 3 iter: 5", {3, 3}},
      {"PAPER", "policy: STEPUP value: 0.125 gamma: 2 step: 2 max: 4 iter: 4", {0.5, 0.5, 1, 1, 2}},
      {"PAPER", "policy: ADDUP value: 0.5 gamma: -0.25 step: 1 min: 0.125", {0.5, 0.25, 0.125, 0.125}},
      {"PAPER", "value: 3", {1, 1}},  // max is 1
  };
  for (const auto& c : cases) {
    const std::string text =
        std::string("metric: IP formula: ") + c.formula + " margin_mul {" + c.margin + "}";
    SCOPED_TRACE(text);
    bench<TypeParam> b({1, 1, 1}, fields_of(text), true, true);
    b.x.mutable_cpu_data()[0] = b.layer->blobs()[0]->mutable_cpu_data()[0] = 1;
    for (const double margin : c.expected) {
      b.layer->Forward(b.bottom, b.top);
      EXPECT_NEAR(1 + margin, b.logits.cpu_data()[0], 1e-6);
    }
  }
}

TYPED_TEST(ClassDistance, PaperFormula) {
  for (const sizes& n : all_sizes)
    for (const char* metric : {"L2", "IP"})
      for (const bool isotropic : {false, true})
        for (const bool train : {false, true})
          for (const bool second_top : {false, true}) {
            const ClassDistanceParameter fields =
                fields_of(std::string("formula: PAPER center_coef: 0.3 margin_mul { value: 0.4 } metric: ") +
                          metric + " isotropic: " + (isotropic ? "true" : "false"));
            bench<TypeParam> b(n, fields, train, true, second_top);
            b.layer->Forward(b.bottom, b.top);
            const answer expected = paper(b.p);
            expect_near(expected.logits, b.logits.cpu_data(), 0, "logit");
            if (second_top) expect_near({expected.likelihood}, b.likelihood.cpu_data(), 0, "likelihood");
          }
}

TYPED_TEST(ClassDistance, PaperGradients) {
  for (const char* metric : {"L2", "IP"})
    for (const bool isotropic : {false, true})
      for (const bool train : {false, true})
        for (const int form : {0, 1, 2}) {  // without labels; with; and with the likelihood
          SCOPED_TRACE(std::string(metric) + (isotropic ? " isotropic" : " diagonal") +
                       (train ? " train " : " test ") + std::to_string(form));
          const ClassDistanceParameter fields = fields_of(
              std::string(
                  "formula: PAPER update_sigma: true center_coef: 0.3 margin_mul { value: 0.4 } "
                  "weight_filler { type: 'gaussian' } bias_filler { type: 'uniform' min: 0.5 max: 2 } "
                  "metric: ") +
              metric + " isotropic: " + (isotropic ? "true" : "false"));
          bench<TypeParam> b({4, 3, 5}, fields, train, form > 0, form == 2);
          caffe::GradientChecker<TypeParam> checker(sizeof(TypeParam) == 4 ? 1e-2 : 1e-4,
                                                    sizeof(TypeParam) == 4 ? 5e-3 : 1e-7);
          caffe::ClassDistanceLayer<TypeParam> layer(b.parameter);
          checker.CheckGradientExhaustive(&layer, b.bottom, b.top, 0);
        }
}

// Without update_sigma the variances have no gradient, and the others are what they are with it. The parameters' gradients add to
// what is there.
TYPED_TEST(ClassDistance, PaperFixedVariances) {
  for (const char* isotropic : {"true", "false"}) {
    const std::string text =
        std::string("formula: PAPER center_coef: 0.3 margin_mul { value: 0.4 } isotropic: ") + isotropic +
        " update_sigma: ";
    bench<TypeParam> fixed({9, 5, 4}, fields_of(text + "false"), true, true, true);
    bench<TypeParam> free({9, 5, 4}, fields_of(text + "true"), true, true, true);
    bench<TypeParam> added({9, 5, 4}, fields_of(text + "true"), true, true, true);
    for (bench<TypeParam>* b : {&fixed, &free, &added}) {
      b->layer->Forward(b->bottom, b->top);
      b->likelihood.mutable_cpu_diff()[0] = 1;
      b->backward(b == &added ? 0.25 : 0);
    }
    const double tolerance = sizeof(TypeParam) == 4 ? 1e-5 : 1e-13;
    for (int i = 0; i < fixed.x.count(); ++i)
      EXPECT_NEAR(fixed.x.cpu_diff()[i], free.x.cpu_diff()[i], tolerance);
    for (int n = 0; n < 2; ++n)
      for (int i = 0; i < free.layer->blobs()[n]->count(); ++i) {
        const TypeParam expected = free.layer->blobs()[n]->cpu_diff()[i];
        EXPECT_NEAR(expected + 0.25, added.layer->blobs()[n]->cpu_diff()[i], tolerance);
        EXPECT_NEAR(n == 0 ? expected : 0, fixed.layer->blobs()[n]->cpu_diff()[i], tolerance);
      }
    EXPECT_LT(0, free.layer->blobs()[1]->asum_diff());
  }
}

// In a net that names one top the likelihood joins the loss by itself; without labels there is none.
TYPED_TEST(ClassDistance, PaperInANet) {
  const std::string text = R"(
    force_backward: true
    layer { name: 'x' type: 'DummyData' top: 'x' top: 'z' dummy_data_param {
      shape { dim: 4 dim: 3 dim: 2 dim: 1 } shape { dim: 4 }
      data_filler { type: 'gaussian' } data_filler { type: 'constant' value: 1 } } }
    layer { name: 'classifier' type: 'ClassDistance' bottom: 'x' bottom: 'z' top: 'classifier' class_distance_param {
      num_output: 3 formula: PAPER center_coef: 0.5 weight_filler { type: 'msra' }
      bias_filler { type: 'constant' value: 2 } } }
    layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'classifier' bottom: 'z' top: 'loss' }
    layer { name: 'plain' type: 'ClassDistance' bottom: 'x' top: 'plain' class_distance_param {
      num_output: 3 formula: PAPER center_coef: 0.5 weight_filler { type: 'msra' }
      bias_filler { type: 'constant' value: 2 } } })";
  caffe::NetParameter parameter;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &parameter));
  parameter.mutable_state()->set_phase(caffe::TRAIN);
  caffe::Net<TypeParam> net(parameter);
  TypeParam loss = 0;
  net.Forward(&loss);
  double likelihood = 0;
  for (size_t i = 0; i < net.layers().size(); ++i)
    if (std::string(net.layers()[i]->type()) == "ClassDistance") {
      EXPECT_EQ(net.layer_names()[i] == "classifier" ? 2U : 1U, net.top_vecs()[i].size());
      if (net.top_vecs()[i].size() == 2) likelihood = net.top_vecs()[i][1]->cpu_data()[0];
    }
  EXPECT_LT(0, likelihood);
  EXPECT_NEAR(net.blob_by_name("loss")->cpu_data()[0] + likelihood, loss, 1e-5);
  net.Backward();
}

TYPED_TEST(ClassDistance, RefusesByName) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const char* field :
       {"metric: L1", "dropout_ratio: 0.5", "ignore_zero: true", "block_mul_grad: true"}) {
    const std::string name = std::string(field).substr(0, std::string(field).find(':'));
    EXPECT_DEATH(bench<TypeParam>({2, 3, 4}, fields_of(field), true, true), name);
  }
  EXPECT_DEATH(
      {
        bench<TypeParam> b({2, 3, 4}, fields_of(""), true, true);
        b.z.mutable_cpu_data()[1] = 3;
        b.layer->Forward(b.bottom, b.top);
      },
      "label of sample 1 is 3");
}

// A test net has no use for labels, whatever they are.
TYPED_TEST(ClassDistance, LabelsAreNotReadInTesting) {
  bench<TypeParam> b({2, 3, 4}, fields_of("center_coef: 1 margin_mul { value: 0.5 }"), false, true);
  b.z.mutable_cpu_data()[1] = -1;
  b.layer->Forward(b.bottom, b.top);
}

}  // namespace
