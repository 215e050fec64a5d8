#pragma once

#include <cstdint>
#include <memory>

namespace adgan {

// Memory of one thread, or of a team; everything a search touches lies in it, so that no step allocates.
class Arena {
 public:
  explicit Arena(std::int64_t floats);
  float* take(std::int64_t floats);  // aligned to a cache line; throws std::logic_error at the end
  void reset() { used_ = 0; }
  static std::int64_t taken(std::int64_t floats);  // of an arena, by a region of so many
  void poison();                                   // NaN everywhere

 private:
  struct Free {
    void operator()(float* p) const;
  };
  std::unique_ptr<float, Free> memory_;
  std::int64_t size_, used_ = 0;
};

}  // namespace adgan
