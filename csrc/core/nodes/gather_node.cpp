#include "core/nodes/gather_node.h"

#include <algorithm>
#include <utility>

#include "core/nodes/wide_sums.h"

namespace adgan {

namespace {

// Elements that lie together in x and in y.
struct Stretch {
  int from, to, count;  // from -1: in y alone
};

std::vector<Stretch> stretches(const std::vector<int>& index) {
  std::vector<Stretch> found;
  for (std::size_t i = 0; i < index.size(); ++i) {
    const int next = found.empty() || found.back().from < 0 ? -1 : found.back().from + found.back().count;
    if (!found.empty() && index[i] == next) {
      found.back().count += 1;
    } else {
      found.push_back({index[i], static_cast<int>(i), 1});
    }
  }
  return found;
}

// Whether copies of stretches are worth their calls.
bool are_long(const std::vector<Stretch>& found, std::size_t elements) { return found.size() * 8 <= elements; }

class Gather : public Node {
 public:
  explicit Gather(GatherPlaces at) : at_(std::move(at)), stretches_(stretches(at_.source)) {
    by_stretch_ = are_long(stretches_, at_.source.size());
    if (!by_stretch_) stretches_.clear();
    std::vector<bool> seen(static_cast<std::size_t>(at_.input_size));
    once_ = static_cast<std::int64_t>(at_.source.size()) == at_.input_size;
    for (const int from : at_.source) {
      if (from < 0 || seen[static_cast<std::size_t>(from)]) once_ = false;
      if (from >= 0) seen[static_cast<std::size_t>(from)] = true;
    }
  }

  void forward(Run& run) const override {
    const float* const x = run.act + at_.x;
    float* const y = run.act + at_.y;
    if (by_stretch_) {
      for (const Stretch& s : stretches_) {
        if (s.from < 0) {
          std::fill_n(y + s.to, s.count, at_.elsewhere);
        } else {
          std::copy_n(x + s.from, s.count, y + s.to);
        }
      }
      return;
    }
    for (std::size_t i = 0; i < at_.source.size(); ++i) y[i] = at_.source[i] < 0 ? at_.elsewhere : x[at_.source[i]];
  }

  void backward(Run& run) const override {
    if (at_.dx < 0) return;
    const float* const dy = run.grad + at_.dy;
    float* const dx = run.grad + at_.dx;
    const bool alone = once_ && !at_.add_dx;  // each element of dx gets one of dy
    if (!at_.add_dx && !alone) std::fill_n(dx, at_.input_size, 0.0f);
    if (gathers_many(static_cast<std::int64_t>(at_.source.size()), at_.input_size)) {
      double* const wide = wide_zeros(run, at_.input_size);
      each([&](std::int64_t from, std::int64_t i) { wide[from] += dy[i]; });
      return add_wide(wide, at_.input_size, dx);
    }
    if (by_stretch_) {
      for (const Stretch& s : stretches_) {
        if (s.from < 0) continue;
        if (alone) {
          std::copy_n(dy + s.to, s.count, dx + s.from);
        } else {
          run.kernels->add(dy + s.to, dx + s.from, s.count);
        }
      }
    } else if (alone) {
      for (std::size_t i = 0; i < at_.source.size(); ++i) dx[at_.source[i]] = dy[i];
    } else {
      each([&](std::int64_t from, std::int64_t i) { dx[from] += dy[i]; });
    }
  }

 private:
  // f(place in x, place in y) of each element that is of x.
  template <typename F>
  void each(const F& f) const {
    for (std::size_t i = 0; i < at_.source.size(); ++i) {
      if (at_.source[i] >= 0) f(at_.source[i], static_cast<std::int64_t>(i));
    }
  }

  const GatherPlaces at_;
  std::vector<Stretch> stretches_;
  bool by_stretch_ = false, once_ = false;
};

class Placement : public Node {
 public:
  explicit Placement(PlacementPlaces at) : at_(std::move(at)), stretches_(stretches(at_.target)) {}

  void forward(Run& run) const override {
    const float* const x = run.act + at_.x;
    float* const y = run.act + at_.y;
    for (const Stretch& s : stretches_) std::copy_n(x + s.to, s.count, y + s.from);
  }

  void backward(Run& run) const override {
    if (at_.dx < 0) return;
    const float* const dy = run.grad + at_.dy;
    float* const dx = run.grad + at_.dx;
    for (const Stretch& s : stretches_) {
      if (at_.add_dx) {
        run.kernels->add(dy + s.from, dx + s.to, s.count);
      } else {
        std::copy_n(dy + s.from, s.count, dx + s.to);
      }
    }
  }

 private:
  const PlacementPlaces at_;
  const std::vector<Stretch> stretches_;  // from: in y, to: in x
};

}  // namespace

std::unique_ptr<Node> make_gather(GatherPlaces at) { return std::make_unique<Gather>(std::move(at)); }

std::unique_ptr<Node> make_placement(PlacementPlaces at) { return std::make_unique<Placement>(std::move(at)); }

}  // namespace adgan
