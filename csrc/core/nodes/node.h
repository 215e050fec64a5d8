// A step of the forward and backward pass, and what it works on.
#pragma once

#include <cstdint>
#include <vector>

#include "core/kernels/kernels.h"
#include "core/team.h"

namespace adgan {

// Seconds spent, by layer of the program (the last entry: everything that belongs to none), forward and backward.
struct Timers {
  std::vector<double> forward, backward;
  double updates = 0;  // prepare() and update()
};

// What a node works on: some samples (or one), and the weights of their owner.
struct Run {
  const KernelTable* kernels;
  const float* fixed;  // constants, and what follows from them alone
  const float* theta;  // θ₀, in the layout of the state
  State state;         // parameters of the owner; `old` is what a forward or backward pass reads
  float* prepared;     // what follows from the parameters: packed copies, scales and shifts
  float* gradient;     // of parameters that no node updates itself; null: nothing is learned
  int samples;
  float* act;   // values, one sample's after another's
  float* grad;  // and their gradients
  std::int64_t act_stride, grad_stride;
  const Team* team;             // who may share the work
  int sample;                   // where nodes are called for each sample: which of them
  float* scratch;               // of the first thread
  std::int64_t scratch_stride;  // to the next one's
  float *history, *change;      // of the rank-1 layers: inputs and output gradients; what their weights have moved by
  AdamStep adam;                // of the parameters
  int step;                     // from 1; 0 before any
  // The latent's own state, for the node that moves it (ExecutionPlan::moves_latent).
  AdamStep adam_latent;
  State latent;
  float* next_act;
  bool first_layer_done;
  bool keep_weights;  // the last step's, which no pass reads
  Timers* timers;     // or null

  // The same for one sample, as a thread of the team sees it.
  Run of_sample(int number, int thread) const {
    Run one = *this;
    one.samples = 1;
    one.sample = number;
    one.act += number * act_stride;
    one.grad += number * grad_stride;
    one.scratch += thread * scratch_stride;
    return one;
  }
};

class Node {
 public:
  bool passes_gradient = true;  // else backward() is not called: what it would add is zero, and is not written

  virtual ~Node() = default;
  virtual bool takes_all_samples() const { return false; }  // else forward() and backward() are called for each
  virtual void prepare(Run&) const {}                       // once the parameters are known
  virtual void forward(Run&) const = 0;
  virtual void backward(Run&) const = 0;
  virtual void finish(Run&) const {}  // once the gradients of all samples are there
  // Adds what the weights at this place in θ₀ have moved by, where the node keeps that alone.
  virtual void add_change(const Run&, std::int64_t /*place*/, float* /*weights*/) const {}
};

// The gradient of a parameter that is used as it is (a bias, a norm's, a learned constant), a sum over all samples:
// those of one number add to a part of their own, in Run::prepared, and at the end the parts are added in order. So
// threads and their number change no bit.
struct SampleSums {
  std::int64_t at = -1;  // of the parts; -1: not wanted
  std::int64_t size = 0, stride = 0;
  int parts = 0;
  std::int64_t gradient = 0;  // in Run::gradient

  bool wanted(const Run& run) const { return run.gradient && at >= 0; }
  void clear(Run& run) const;
  float* part(const Run& run, int sample) const { return run.prepared + at + sample * stride; }
  void add_up(Run& run) const;
};

}  // namespace adgan
